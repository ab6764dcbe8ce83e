"""A campaign whose method reads statistics of its experts: taken once, the same bytes again, also moved."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import evomerge
from evomerge.candidate.experts import without_expert
from evomerge.candidate.recipe import STATISTICS
from evomerge.config import Campaign
from evomerge.errors import CampaignError, ResultsError, UserError
from evomerge.merge.statistics import MERGED, MOMENT, look_in
from evomerge.merge.user_methods import use
from evomerge.preflight.check import preflight
from evomerge.scoring import Scorer
from evomerge.store import Store
from evomerge.workers.evaluator import Evaluator
from tests.small_campaign import TEXT

CAMPAIGN = (
    TEXT.replace("method: task_arithmetic", "method: [ties, task_arithmetic]")
    .replace("    weight:", "    density: 0.4\n    importance: true\n    weight:")
    .replace("sampler: cmaes, trials: 6, finalists: 2", "sampler: cmaes, trials: 4, finalists: 1")
    .replace("search: 8, select: 8, holdout: 16", "search: 4, select: 4, holdout: 4")
    .replace("zoo_facts, metric", "zoo_facts, teacher: facts, metric")
)
MOMENTS = """\
import evomerge

READS = evomerge.Parameter("boolean", "read second moments", default=True, reads="moment")
WEIGHT = evomerge.Parameter("number", "share of the expert", required=True, per_source=True)


@evomerge.method("shrunk", {"weight": WEIGHT, "activations": READS})
def shrunk(inputs):
    merged = inputs.tensor(inputs.base).clone()
    for index in inputs.others:
        delta = inputs.own[index]["weight"] * inputs.delta(index)
        if "proj" in inputs.name:
            moment = inputs.moment(index)
            delta = delta * (moment.diagonal() / moment.diagonal().max())
        merged += delta
    return merged
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("statistics")


@pytest.fixture(scope="module")
def file(folder):
    (folder / "c.yaml").write_text(CAMPAIGN)
    return folder / "c.yaml"


@pytest.fixture(scope="module")
def result(file):
    return evomerge.search(file)


def history(folder):
    with Store.open(folder, write=False) as store:
        return [(trial.params, trial.values, trial.candidate.text()) for trial in store.trials()]


def test_each_expert_read_its_own_prompts_or_all(result, file):
    """Facts is the teacher of a task and reads its prompts; translation reads those of both tasks."""
    found = load_file(result.folder / STATISTICS)
    ready = preflight(Campaign.load(file), file)
    models = list(ready.family.family.experts.values())
    module = AutoModelForCausalLM.from_pretrained(models[0]).eval()
    prompts = Scorer(ready.items).prompts(module).tokens("search")
    for place, (model, tasks) in enumerate(
        zip(models, [["zoo_facts"], ["zoo_facts", "zoo_translation"]], strict=True)
    ):
        module = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        seen = {}
        for name, layer in module.named_modules():
            if isinstance(layer, torch.nn.Linear):
                layer.register_forward_pre_hook(
                    lambda _, x, name=name, seen=seen: seen.setdefault(name, []).append(
                        x[0][0].double()
                    )
                )
        with torch.no_grad():
            for tokens in (each for task in tasks for each in prompts[task]):
                module(input_ids=torch.tensor([tokens]))
        expected = {name: torch.cat(rows) for name, rows in seen.items() if name != "lm_head"}
        assert {key for key in found if key.startswith(f"{place}/")} == {
            f"{place}/{name}.weight" for name in expected
        }
        for name, rows in expected.items():
            own = found[f"{place}/{name}.weight"].double()
            assert torch.allclose(own[0], rows.square().mean(0).sqrt(), rtol=1e-4), name
    assert not any(key.startswith(MOMENT) for key in found)


def test_only_candidates_whose_method_reads_it_name_the_file(result):
    with Store.open(result.folder, write=False) as store:
        named = {trial.candidate.method: trial.candidate.statistics for trial in store.trials()}
        assert all(trial.state == "complete" for trial in store.trials())
    assert set(named.items()) <= {("ties", STATISTICS), ("task_arithmetic", None)}


def test_two_workers_share_the_same_file_and_history(result, file, tmp_path):
    two = evomerge.search(file, out=tmp_path / "two", workers=2)
    for name in (STATISTICS,):
        assert (two.folder / name).read_bytes() == (result.folder / name).read_bytes()


def test_resume_reuses_the_file_also_in_another_place_and_refuses_another_one(result, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(result.folder, moved)
    before = (moved / STATISTICS).stat().st_mtime_ns
    evomerge.resume(moved, trials=2)
    assert (moved / STATISTICS).stat().st_mtime_ns == before
    assert history(moved)[:4] == history(result.folder)
    assert len(history(moved)) == 6
    content = bytearray((moved / STATISTICS).read_bytes())
    content[-1] ^= 1
    (moved / STATISTICS).write_bytes(content)
    with pytest.raises(ResultsError, match=f"{STATISTICS}: is not what the campaign began with"):
        evomerge.resume(moved, trials=1)


def test_killed_and_resumed_it_has_the_same_history(result, file, tmp_path):
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "evomerge", "search", file, "--out", out, "--display", "json"]
    driver = subprocess.Popen(
        list(map(str, command)),
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    for line in driver.stderr:
        if '"stage": "statistics of the experts", "done": 1' in line:
            break
    driver.send_signal(signal.SIGKILL)
    driver.communicate(timeout=60)
    assert not (out / STATISTICS).exists() or not history(out)
    evomerge.resume(out)
    assert history(out) == history(result.folder)
    for name in (STATISTICS, "best/model.safetensors"):
        assert (out / name).read_bytes() == (result.folder / name).read_bytes()


REGRESSION = CAMPAIGN.replace(
    "method: [ties, task_arithmetic]\n  layers: 2\n  parameters:\n    density: 0.4\n    importance",
    "method: regmean\n  layers: 2\n  parameters:\n    activations",
).replace("trials: 4", "trials: 2")


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    """A finished campaign of two experts, and the same with a third one."""
    folder = tmp_path_factory.mktemp("joined")
    (folder / "c.yaml").write_text(REGRESSION)
    before = evomerge.search(folder / "c.yaml", out=folder / "before")
    shutil.copytree(before.folder, folder / "after")
    return before, evomerge.add(folder / "after", "zoo:tools"), folder / "after"


def test_an_expert_that_joins_reads_and_its_statistics_are_those_of_a_new_campaign(
    joined, tmp_path
):
    before, change, folder = joined
    (tmp_path / "c.yaml").write_text(
        REGRESSION.replace("zoo:translation", "zoo:translation, zoo:tools")
    )
    fresh = load_file(
        evomerge.search(tmp_path / "c.yaml", out=tmp_path / "fresh").folder / STATISTICS
    )
    found, old = (load_file(one / STATISTICS) for one in (folder, before.folder))
    assert found.keys() == fresh.keys() > old.keys()
    assert all(torch.equal(found[name], fresh[name]) for name in found)
    values = change.values["select"]
    means = [sum(own[n] for own in values.values()) for n in (0, 1)]
    assert means[1] >= means[0]  # nothing is lost


def test_who_left_may_come_back_and_a_search_goes_on(joined, tmp_path, monkeypatch):
    read = []
    evaluate = Evaluator.evaluate
    monkeypatch.setattr(
        Evaluator,
        "evaluate",
        lambda self, job: read.append(job.entry.candidate.statistics) or evaluate(self, job),
    )
    results = shutil.copytree(joined[0].folder, tmp_path / "results")
    evomerge.add(results, "zoo:tools")
    assert read.count(f"{STATISTICS}#0,1,2") >= 4  # a merge with each weight
    content = (results / STATISTICS).read_bytes()
    evomerge.remove(results, "facts")
    evomerge.add(results, "zoo:facts")
    evomerge.resume(results, trials=1)  # with the experts that it began with
    assert history(results)[:2] == history(joined[0].folder)
    assert len(history(results)) == 3
    assert (results / STATISTICS).read_bytes() == content


def test_a_merge_without_an_expert_is_that_of_the_others(joined, tmp_path):
    before, _, folder = joined
    with Store.open(before.folder, write=False) as store:
        merge = next(trial.candidate for trial in store.trials())
    statistics = load_file(before.folder / STATISTICS)
    left = without_expert(merge, merge.experts[0])
    assert left.statistics == f"{STATISTICS}#1"
    own = {n.replace("1/", "0/", 1): t for n, t in statistics.items() if n.split("/")[-2] == "1"}
    save_file(own, tmp_path / "own")
    alone = replace(left, statistics=str(tmp_path / "own"))
    whole = replace(merge, statistics=str(before.folder / STATISTICS))
    look_in(folder)  # where a third one joined
    for name, one in {"left": left, "alone": alone, "old": merge, "whole": whole}.items():
        evomerge.merge(one, tmp_path / name)
    evomerge.merge(tmp_path / "left/recipe.yaml", tmp_path / "again")
    for same in (("left", "alone", "again"), ("old", "whole")):
        found = [(tmp_path / name / "model.safetensors").read_bytes() for name in same]
        assert len(set(found)) == 1


def test_moments_in_a_merge_are_taken_for_a_campaign_that_reads_them_and_none_can_join(
    joined, tmp_path
):
    before, _, _ = joined
    (tmp_path / "c.yaml").write_text(REGRESSION.replace("activations", "merged_features"))
    results = evomerge.search(tmp_path / "c.yaml").folder
    found, alone = (load_file(one / STATISTICS) for one in (results, before.folder))
    moments = {n.removeprefix(MOMENT): one for n, one in alone.items() if n.startswith(MOMENT)}
    assert found.keys() == {f"{MERGED}{name}" for name in moments}
    assert not any(torch.equal(one, found[f"{MERGED}{name}"]) for name, one in moments.items())
    assert all(trial[1] for trial in history(results))
    with pytest.raises(UserError, match="a merge of all, so that none can join"):
        evomerge.add(results, "zoo:tools")
    evomerge.merge(results / "best/recipe.yaml", tmp_path / "again")
    weights = tmp_path / "again/model.safetensors"
    assert weights.read_bytes() == (results / "best/model.safetensors").read_bytes()


def test_who_is_killed_while_an_expert_joins_has_what_was_there(joined, tmp_path, monkeypatch):
    before, _, folder = joined
    results = shutil.copytree(before.folder, tmp_path / "results")

    def killed(self, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"{Path.__module__}.Path.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            evomerge.add(results, "zoo:tools")
    evomerge.resume(results)
    evomerge.add(results, "zoo:tools")
    assert (results / STATISTICS).read_bytes() == (folder / STATISTICS).read_bytes()


def test_other_scorers_are_refused(tmp_path):
    text = CAMPAIGN.replace("workers:", "scorer: {backend: hf}\nworkers:")
    text = text.replace("metric: gold_loglikelihood", "metric: exact_match")
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(CampaignError, match=r"scorer\.backend: .*learn from prompts"):
        evomerge.check(tmp_path / "c.yaml")


def with_own(tmp_path, content, text=CAMPAIGN):
    save_file(content, tmp_path / "mine.safetensors")
    text = text.replace("tasks_path:", "statistics: mine.safetensors\ntasks_path:")
    (tmp_path / "c.yaml").write_text(text)
    return tmp_path / "c.yaml"


def test_importances_of_ones_own_take_the_place_of_prompts(result, tmp_path):
    own = {key: 2 * one for key, one in load_file(result.folder / STATISTICS).items()}
    found = evomerge.search(with_own(tmp_path, own))
    assert load_file(found.folder / STATISTICS).keys() == own.keys()
    assert all(
        torch.equal(one, own[key]) for key, one in load_file(found.folder / STATISTICS).items()
    )
    doubled = [values for _, values, _ in history(found.folder)]
    assert doubled == [values for _, values, _ in history(result.folder)]  # the same ranks
    (tmp_path / "mine.safetensors").unlink()
    evomerge.resume(found.folder, trials=1)
    assert len(history(found.folder)) == 5


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda own: {key: one for key, one in own.items() if key.startswith("0/")},
            "holds nothing of",
        ),
        (lambda own: {key: -one for key, one in own.items()}, "expected numbers of at least 0"),
        (lambda own: {"0/x": torch.ones(1), **own}, "which is not a tensor of"),
        (None, "no method of this campaign reads it"),
    ],
)
def test_check_answers_importances_that_do_not_fit_with_one_line(
    result, tmp_path, change, expected
):
    own, text = load_file(result.folder / STATISTICS), CAMPAIGN
    if change is None:
        text = text.replace("importance: true", "importance: false")
    file = with_own(tmp_path, own if change is None else change(own), text)
    with pytest.raises(CampaignError, match=expected) as caught:
        evomerge.check(file)
    line = text.splitlines().index(next(s for s in text.splitlines() if s.startswith("tasks_path")))
    assert f"c.yaml:{line + 1}: statistics: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_second_moments_are_kept_where_a_method_reads_them_and_the_winner_is_rebuilt(
    folder, tmp_path
):
    text = CAMPAIGN.replace("[ties, task_arithmetic]", "shrunk").replace(
        "    density: 0.4\n    importance: true\n", ""
    )
    text = text.replace("tasks_path:", "methods: mine.py\ntasks_path:").replace(
        "trials: 4", "trials: 2"
    )
    (tmp_path / "mine.py").write_text(MOMENTS)
    (tmp_path / "c.yaml").write_text(text)
    found = evomerge.search(tmp_path / "c.yaml", workers=2)
    kept = load_file(found.folder / STATISTICS)
    for key in (key for key in kept if key.startswith(MOMENT)):
        assert kept[key].shape == (kept[key].shape[1],) * 2
        own = kept[key.removeprefix(MOMENT)][0]
        assert torch.allclose(kept[key].diagonal().sqrt(), own, rtol=1e-4)
    best = found.folder / "best"
    assert found.best.candidate.method == "shrunk"
    assert (best / STATISTICS).read_bytes() == (found.folder / STATISTICS).read_bytes()
    evomerge.merge(best / "recipe.yaml", tmp_path / "again", methods=best / "merge_methods.py")
    evomerge.merge(found.folder, tmp_path / "trial", trial="best")
    for name in ("again", "trial"):
        weights = tmp_path / name / "model.safetensors"
        assert weights.read_bytes() == (best / "model.safetensors").read_bytes()
    use(None)


def test_statistics_of_prompts_of_ones_own(llama_family, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "ab"}\n{"text": "cde"}\n')
    experts = llama_family.experts[:2]
    evomerge.statistics(experts, prompts, tmp_path / "s", moments=True)
    lines = ["merge_method: ties", f"base_model: {llama_family.base}", "models:"]
    lines += [f"  - {{model: {one}, parameters: {{weight: 1, density: 0.5}}}}" for one in experts]
    lines += ["parameters: {importance: true}", "statistics: s"]
    (tmp_path / "r.yaml").write_text("\n".join(lines))
    evomerge.merge(tmp_path / "r.yaml", tmp_path / "out")
    evomerge.statistics(experts, [prompts, prompts], tmp_path / "again")
    plain, full = load_file(tmp_path / "again"), load_file(tmp_path / "s")
    assert full.keys() - plain.keys() == {f"{MOMENT}{key}" for key in plain}
    assert all(torch.equal(plain[key], full[key]) for key in plain)
    with pytest.raises(ResultsError, match="exists already"):
        evomerge.statistics(experts, prompts, tmp_path / "s")
    with pytest.raises(UserError, match="a file of prompts for each expert"):
        evomerge.statistics(experts, [prompts], tmp_path / "x")
