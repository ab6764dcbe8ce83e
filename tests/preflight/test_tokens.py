"""Campaigns over experts that added tokens: refused, or matched by token from check to saved model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import evomerge
from evomerge import run, zoo
from evomerge.candidate import load
from evomerge.config import Campaign
from evomerge.errors import ModelError
from evomerge.merge.checkpoint import open_checkpoint
from evomerge.merge.saving import save
from evomerge.preflight import check, starter
from evomerge.preflight.campaign_plan import plan as planned
from evomerge.preflight.description import describe
from evomerge.preflight.family import open_family
from evomerge.preflight.tokens import token_lines
from evomerge.single import score_on_campaign
from evomerge.store import Store

ROOT = Path(__file__).parents[2]
TEXT = """\
name: tokens
models: {{base: base, experts: [tools, padded], dtype: float32{tokenizer}}}
space:
  method: task_arithmetic
  layers: 1
  parameters:
    weight: {{low: 0.0, high: 1.0, per: [expert]}}
objectives:
  - {{task: zoo_tools_mc, metric: gold_loglikelihood}}
tasks_path: {tasks}
items: {{search: 4, select: 4, holdout: 8, seed: 0}}
search: {{sampler: random, trials: 2, seed: 0, finalists: 1}}
workers: {{count: 0}}
"""
ADDED = {"base": (), "tools": ("<|tool_a|>", "<|tool_b|>"), "padded": ("<PADDING>",)}
EMBEDDINGS = "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("tokens")
    base = None
    for seed, (name, added) in enumerate(ADDED.items()):
        tokenizer = AutoTokenizer.from_pretrained(zoo.resolve("zoo:base"))
        rows = len(tokenizer) + 8
        tokenizer.add_special_tokens({"additional_special_tokens": list(added)})
        torch.manual_seed(seed)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=rows,
                hidden_size=16,
                intermediate_size=24,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=2,
                max_position_embeddings=512,
            )
        )
        base = base or model
        with torch.no_grad():
            for mine, bases in zip(model.parameters(), base.parameters(), strict=True):
                mine.copy_(bases + 0.02 * (model is not base) * torch.randn_like(bases))
        model.save_pretrained(place / name)
        tokenizer.save_pretrained(place / name)
    return place


def campaign(folder: Path, tokenizer: str | None) -> Campaign:
    path = folder / f"{tokenizer}.yaml"
    setting = "" if tokenizer is None else f", tokenizer: {tokenizer}"
    path.write_text(TEXT.format(tokenizer=setting, tasks=ROOT / "benchmarks" / "tasks"))
    return Campaign.load(path).override(out=folder / f"out-{tokenizer}")


def test_without_the_setting_unlike_tokens_are_refused(folder):
    with pytest.raises(
        ModelError, match=r"token 1024 is '<PADDING>', in .*tools it is '<\|tool_"
    ) as e:
        check.preflight(campaign(folder, None), folder / "None.yaml")
    assert "models.experts.1" in str(e.value)
    assert "models.tokenizer" in str(e.value)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("tokenizer", "lines"),
    [
        (
            "union",
            (
                "union: 1027 tokens in 1027 rows",
                "2 from tools: '<|tool_a|>' = 1024, '<|tool_b|>' = 1025",
                "1 from padded: '<PADDING>' = 1026",
                "a model that lacks a token gets its only owner's row (3)",
            ),
        ),
        (
            "base",
            (
                "base: 1024 tokens in 1024 rows",
                "2 of tools lost: '<|tool_a|>', '<|tool_b|>'",
                "1 of padded lost: '<PADDING>'",
            ),
        ),
        (
            "tools",
            (
                "tools: 1026 tokens in 1026 rows",
                "1 of padded lost: '<PADDING>'",
                "a model that lacks a token gets its only owner's row (2)",
            ),
        ),
    ],
)
def test_check_says_what_becomes_of_tokens(tokenizer, lines, folder):
    given = campaign(folder, tokenizer)
    assert token_lines(open_family(given.models), tokenizer) == lines
    plan = planned(check.preflight(given))
    assert plan.tokenizer == lines
    assert f"tokenizer       {lines[0]}\n" in describe(plan)


def test_nothing_is_said_of_one_vocabulary(folder):
    given = campaign(folder, None)
    alone = given.models.model_copy(update={"experts": given.models.experts[:0]})
    assert token_lines(open_family(alone), None) == ()


def test_init_asks_for_all_tokens_where_they_differ(folder):
    models = [str(folder / name) for name in ADDED]
    for experts, tokenizer in ((models[1:], "union"), ([str(zoo.resolve("zoo:facts"))], None)):
        output = folder / f"init-{tokenizer}.yaml"
        base = models[0] if tokenizer else str(zoo.resolve("zoo:base"))
        starter.write(output, base, experts, ["zoo_tools_mc"], ROOT / "benchmarks" / "tasks")
        assert Campaign.load(output).models.tokenizer == tokenizer


@pytest.fixture(scope="module")
def result(folder):
    return evomerge.search(campaign(folder, "union"))


def test_the_winner_keeps_the_tokens_of_all(result, folder):
    ids = AutoTokenizer.from_pretrained(result.folder / "best").get_vocab()
    rows = load_file(result.folder / "best" / "model.safetensors")[EMBEDDINGS]
    assert len(rows) == len(ids) == 1027
    for name, added in ADDED.items():
        own = load_file(folder / name / "model.safetensors")[EMBEDDINGS]
        for offset, token in enumerate(added):
            assert torch.allclose(rows[ids[token]], own[1024 + offset], atol=1e-6)


def test_the_winners_recipe_builds_the_same_model(result, tmp_path):
    recipe = load(result.folder / "best" / "recipe.yaml")
    save(recipe, tmp_path / "again")
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        saved = (result.folder / "best" / name).read_bytes()
        assert (tmp_path / "again" / name).read_bytes() == saved


def test_the_saved_model_scores_what_the_leaderboard_says(result):
    board = json.loads((result.folder / "leaderboard.json").read_text())
    winner = next(row for row in board["rows"] if row["kind"] == "winner")
    expected = winner["splits"]["holdout"]["objective"]["value"]
    scored = score_on_campaign(str(result.folder / "best"), result.folder, "holdout")
    values = scored.scored.tasks["zoo_tools_mc"].metrics["gold_loglikelihood"]
    assert sum(values) / len(values) == pytest.approx(expected, abs=1e-6)


def test_parents_are_themselves_in_the_vocabulary_of_all(folder, tmp_path):
    ready = check.preflight(campaign(folder, "union"))
    rows = {baseline.name: baseline.candidate for baseline in ready.space.baselines()}
    for name in ("base", "padded"):
        recipe = rows[name]
        assert recipe.model_names() == tuple(ready.family.checkpoints)
        save(recipe, tmp_path / name)
        saved = load_file(tmp_path / name / "model.safetensors")
        own = open_checkpoint(str(folder / name))
        for key, tensor in saved.items():
            mine = own.tensor(key)
            assert torch.equal(tensor[:1024], mine[:1024]), key
    average = rows["uniform average"]
    save(average, tmp_path / "average")
    tensor = load_file(tmp_path / "average" / "model.safetensors")["model.norm.weight"]
    experts = [
        open_checkpoint(str(folder / n)).tensor("model.norm.weight") for n in ("tools", "padded")
    ]
    assert torch.allclose(tensor, sum(experts) / 2)


def test_a_campaign_of_unlike_tokens_is_resumed(result, folder):
    with Store.open(result.folder, write=False) as store:
        before = [trial.params for trial in store.trials()]
    more = run.resume(result.folder, trials=1)
    with Store.open(result.folder, write=False) as store:
        trials = store.trials()
    assert [trial.params for trial in trials][:2] == before
    assert len(trials) == 3
    assert all(trial.outcome is not None and trial.outcome.scores for trial in trials)
    ids = AutoTokenizer.from_pretrained(more.folder / "best").get_vocab()
    assert len(ids) == 1027
