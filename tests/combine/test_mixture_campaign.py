"""Mixtures in a campaign on the zoo: searched, fitted, stored, saved, scored again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoConfig

import evomerge
import evomerge.result
from evomerge.candidate import Merge, Mixture, load_all
from evomerge.cli import run_command
from evomerge.config import Campaign
from evomerge.store import Store
from tests.small_campaign import TEXT

MERGES = TEXT[TEXT.index("  method:") : TEXT.index("objectives:")]
MIXTURE = """\
  kind: mixture
  members: [facts, translation]
  shared: best
  parameters:
    top_k: {low: 1, high: 2}
    temperature: {low: 0.1, high: 1.0}
    share: 0.25
"""


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> evomerge.result.Result:
    folder = tmp_path_factory.mktemp("campaign")
    path = folder / "c.yaml"
    path.write_text(TEXT.replace(MERGES, MIXTURE).replace("trials: 6", "trials: 4"))
    assert "gates" not in evomerge.check(path).warnings
    return evomerge.search(path, out=folder / "out")


def test_every_trial_is_a_mixture_with_gates_over_the_best_merge(
    result: evomerge.result.Result,
) -> None:
    with Store.open(result.folder, write=False) as store:
        trials = store.trials()
        known = {one.key: one.candidate for one in store.evaluations()}
    assert [trial.state for trial in trials] == ["complete"] * 4
    for trial in trials:
        made = trial.candidate
        assert isinstance(made, Mixture)
        assert made.fit is not None
        assert len(made.fit.accuracy) == 4
        assert min(made.fit.accuracy) > 0.5
        assert isinstance(made.shared, Merge)
        assert made.shared in known.values()
    assert len({trial.candidate.text() for trial in trials}) == 4


def test_the_winner_is_a_checkpoint_that_scores_what_the_board_says(
    result: evomerge.result.Result,
) -> None:
    best = result.folder / "best"
    assert AutoConfig.from_pretrained(best).architectures == ["Qwen2MoeForCausalLM"]
    board = json.loads((result.folder / "leaderboard.json").read_text())
    (row,) = (one for one in board["rows"] if one["kind"] == "winner")
    for split in ("select", "holdout"):
        scores = evomerge.score(str(best), campaign=result.folder, split=split)
        for task, metrics in row["splits"][split]["tasks"].items():
            found = scores.scored.tasks[task].values
            assert {name: value["value"] for name, value in metrics.items()} == {
                name: found[name].value for name in metrics
            }
    assert row["serving"]["relative_parameters"] > row["serving"]["relative_active"] > 1
    assert "layer by layer" in (best / "README.md").read_text()


def test_the_recipe_beside_the_winner_rebuilds_its_weights(
    result: evomerge.result.Result, tmp_path: Path
) -> None:
    recipe = result.folder / "best" / "recipe.yaml"
    load_all(recipe)
    assert run_command(["merge", str(recipe), str(tmp_path / "again")]) == 0
    for file in ("model.safetensors", "config.json", "gates.safetensors"):
        ours = (result.folder / "best" / file).read_bytes()
        assert (tmp_path / "again" / file).read_bytes() == ours


def test_more_trials_go_on_with_what_was_fitted(
    result: evomerge.result.Result, tmp_path: Path
) -> None:
    with Store.open(result.folder, write=False) as store:
        before = [trial.candidate for trial in store.trials()]
    again = evomerge.resume(result.folder, trials=1)
    with Store.open(again.folder, write=False) as store:
        after = [trial.candidate for trial in store.trials()]
    assert after[:4] == before
    assert len(after) == 5


def test_any_trial_is_saved(result: evomerge.result.Result, tmp_path: Path) -> None:
    assert evomerge.merge(result.folder, tmp_path / "trial", trial=1) == 1
    assert (tmp_path / "trial" / "gates.safetensors").is_file()


def test_it_stands_on_the_best_merge_that_was_searched_beside_it(tmp_path: Path) -> None:
    """Its gates learn from its experts' scores: a merge that was searched is none of these."""
    both = """
  - {method: task_arithmetic, layers: each, parameters: {weight: {low: 0.0, high: 1.2}}}
  - {kind: mixture}
  - {kind: mixture, members: [facts, translation, best]}
"""
    path = tmp_path / "c.yaml"
    text = TEXT.replace("space:\n" + MERGES, f"space:{both}")
    path.write_text(text.replace("sampler: cmaes, trials: 6", "sampler: gradient, trials: 16"))
    found = evomerge.search(path, out=tmp_path / "out")
    with Store.open(found.folder, write=False) as store:
        trials, rows = store.trials(), store.evaluations()
    searched = {one.candidate.text() for one in trials if one.candidate.kind == "merge"}
    naive = {row.candidate.text() for row in rows if row.number is None}
    shared = [
        (len(made.experts), made.shared.text())
        for made in (one.candidate for one in trials)
        if isinstance(made, Mixture)
    ]
    assert {count for count, _ in shared} == {2, 3}
    assert any(text in searched for count, text in shared if count == 2)
    assert all(text in naive for count, text in shared if count == 3)


def test_a_mixture_by_itself_makes_a_campaign(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(TEXT.replace(MERGES, "  kind: mixture\n"))
    assert Campaign.load(path).space.shared == "best"
    plan = evomerge.check(path)
    assert plan.dimensions == 2
    assert plan.memory is not None
    path.write_text(TEXT)
    merges = evomerge.check(path)
    blocks = 4 * 3 * 96 * 256 * 4  # bytes of one model's feed-forward blocks
    assert plan.disk_bytes - merges.disk_bytes > 0.9 * blocks
    assert merges.memory is not None
    assert plan.memory.weights - merges.memory.weights == merges.memory.weights + blocks
