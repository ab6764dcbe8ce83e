"""Full experts of the zoo become adapters, and what that loses is what scoring says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import evomerge
from evomerge.api import truncation
from evomerge.api.truncation import Truncation, adapters
from evomerge.cli import run_command
from evomerge.config import Campaign
from evomerge.errors import UserError
from tests.small_campaign import TEXT

RANK = 8
TASKS = ("zoo_facts", "zoo_translation")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign of ensembles of two experts."""
    folder = tmp_path_factory.mktemp("finished")
    space = TEXT[TEXT.index("space:") : TEXT.index("objectives:")]
    text = TEXT.replace(space, "space: {kind: ensemble, members: [base, facts, translation]}\n")
    text = text.replace("search: 8, select: 8, holdout: 16", "search: 24, select: 16, holdout: 8")
    (folder / "c.yaml").write_text(text.replace("trials: 6", "trials: 3"))
    return evomerge.search(Campaign.load(folder / "c.yaml")).folder


@pytest.fixture(scope="module")
def made(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Truncation:
    return adapters(finished, tmp_path_factory.mktemp("made") / "crew", rank=RANK)


def loss(model: str, results: Path) -> float:
    """Mean over the tasks of the loss on the select items, by the campaign's metric."""
    scored = evomerge.score(model, campaign=results, split="select").scored.tasks
    values = [scored[task].values["gold_loglikelihood"].value for task in TASKS]
    return -sum(values) / len(values)


def test_the_losses_are_those_of_scoring(finished: Path, made: Truncation) -> None:
    assert list(made.members) == ["facts", "translation"]
    combiner = json.loads((made.folder / "combiner.json").read_text())
    places = {place["name"]: place for place in combiner["members"]}
    base = (made.folder / combiner["base"]["path"]).resolve()
    for name, one in made.members.items():
        assert one.full == pytest.approx(loss(f"zoo:{name}", finished), abs=1e-6)
        adapter = made.folder / places[name]["adapter"]
        assert one.adapter == pytest.approx(loss(f"{base}+{adapter}", finished), abs=1e-5)
        assert abs(one.adapter - one.full) > 0.01
        assert 0 < one.kept < 1


def test_an_ensemble_of_adapters_is_one_server(finished: Path, made: Truncation) -> None:
    before, after = evomerge.load(finished / "best"), evomerge.load(made.folder)
    prompts = [f"{n}+{n}" for n in range(20)]
    assert after.route(prompts) == before.route(prompts)
    assert len(after.generate(prompts[:3], max_new_tokens=3)) == 3
    card = (made.folder / "README.md").read_text()
    assert card.count("vllm serve") == 1
    assert "--enable-lora" in card
    assert f"adapters of rank {RANK}" in card
    for one in made.members.values():
        assert f"{one.adapter:.3f}" in card
    assert "evomerge adapters RESULTS_DIR" in (finished / "best" / "README.md").read_text()


def test_the_items_that_a_member_answers_are_told_apart(finished: Path, made: Truncation) -> None:
    counts = [one.own_items for one in made.members.values()]
    assert sum(counts) <= 16 * len(TASKS)
    answered = [one for one in made.members.values() if one.own_items]
    assert answered
    assert all(one.own_lost is not None for one in answered)


def test_the_command_prints_what_is_lost(
    finished: Path, made: Truncation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "crew"
    assert run_command(["adapters", str(finished), str(out), "--rank", str(RANK)]) == 0
    printed = capsys.readouterr().out
    for one in made.members.values():
        assert f"{one.full:.3f}" in printed
        assert f"{one.adapter - one.full:.3f}" in printed
    assert f"saved the ensemble to {out}" in printed
    assert (out / "router.safetensors").read_bytes() == (
        finished / "best" / "router.safetensors"
    ).read_bytes()


def test_what_has_no_full_models_is_refused(
    finished: Path, made: Truncation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "best").symlink_to(made.folder)
    with pytest.raises(UserError, match="an adapter of it already"):
        adapters(results, tmp_path / "out", rank=RANK)
    with pytest.raises(UserError, match=r"no combiner\.json|no such folder"):
        adapters(tmp_path, tmp_path / "out", rank=RANK)
    with pytest.raises(UserError, match="exists"):
        adapters(finished, made.folder, rank=RANK)
    found = truncation.open_candidate(finished / "best")
    on_adapter = replace(found, base=f"{found.base}+lora")
    monkeypatch.setattr(truncation, "open_candidate", lambda _: on_adapter)
    with pytest.raises(UserError, match="has an adapter already"):
        adapters(finished, tmp_path / "out", rank=RANK)
    assert not (tmp_path / "out").exists()
