from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from optuna.distributions import FloatDistribution

from evomerge import candidate as recipe
from evomerge.candidate import Merge
from evomerge.candidate.trial import Entry, Estimate, Job, Outcome, TaskScores
from evomerge.config import Campaign
from evomerge.errors import ResultsError
from evomerge.merge.saving import save
from evomerge.result import materialise
from evomerge.store import Store


def made(family, number: int) -> Merge:
    own = {"weight": ((tuple(0.1 + 0.3 * number for _ in family.experts),),)}
    return Merge("task_arithmetic", tuple(family.experts), family.base, own=own, dtype="float32")


def scores(value: float) -> Outcome:
    return Outcome({"t": TaskScores(("a",), {"acc": (value,)}, {"acc": Estimate(value)})})


@pytest.fixture
def store(llama_family, tmp_path: Path) -> Iterator[Store]:
    """Three trials; nothing chosen yet."""
    campaign = Campaign.model_validate(
        {
            "name": "three trials",
            "models": {
                "base": llama_family.base,
                "experts": list(llama_family.experts),
                "dtype": "float32",
            },
            "space": {
                "method": "task_arithmetic",
                "parameters": {"weight": {"low": 0.0, "high": 1.0}},
            },
            "objectives": [{"task": "t", "metric": "acc"}],
            "out": str(tmp_path / "results"),
        }
    )
    with Store.create(Path(campaign.out), campaign, {}, directions=["maximize"]) as opened:
        for number in range(3):
            candidate = Entry(f"trial {number}", made(llama_family, number), number)
            space = {"weight": FloatDistribution(0.0, 1.0)}
            opened.asked(candidate, {"weight": 0.1 + 0.3 * number}, space)
            opened.told(candidate, scores(number / 4), [number / 4])
        yield opened


def choose(store: Store, family, number: int) -> None:
    candidate = Entry(f"trial {number}", made(family, number), number)
    store.record(Job(candidate, "select"), scores(1.0))
    store.record(Job(candidate, "holdout"), scores(1.0))
    store.choose(candidate, "the best of 2")


def same_weights(one: Path, other: Path) -> bool:
    names = sorted(path.name for path in one.glob("*.safetensors"))
    return names == sorted(path.name for path in other.glob("*.safetensors")) and all(
        (one / name).read_bytes() == (other / name).read_bytes() for name in names
    )


def test_a_trial_is_rebuilt_to_the_byte_with_card_and_recipe(
    store: Store, llama_family, tmp_path: Path
) -> None:
    save(made(llama_family, 0), tmp_path / "expected")
    save(made(llama_family, 2), tmp_path / "another")
    assert materialise(store.folder, "0", tmp_path / "out") == 0
    assert same_weights(tmp_path / "out", tmp_path / "expected")
    assert not same_weights(tmp_path / "out", tmp_path / "another")
    assert recipe.load(tmp_path / "out" / "recipe.yaml") == made(llama_family, 0).recipe()
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "trial 0 of 3 (sampler" in card
    assert "These are search items" in card


def test_best_is_the_winner(store: Store, llama_family, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="no winner was chosen yet; give a trial's number"):
        materialise(store.folder, "best", tmp_path / "out")
    choose(store, llama_family, 1)
    assert materialise(store.folder, "best", tmp_path / "out") == 1
    save(made(llama_family, 1), tmp_path / "expected")
    assert same_weights(tmp_path / "out", tmp_path / "expected")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "the holdout items above chose nothing" in card


@pytest.mark.parametrize("trial", ["3", "-1", "01", "first"])
def test_a_wrong_number_is_one_line_and_nothing_is_written(
    store: Store, tmp_path: Path, trial: str
) -> None:
    message = (
        rf'results: --trial: found "{trial}", expected best or the number of a trial \(0 to 2\)$'
    )
    with pytest.raises(ResultsError, match=message):
        materialise(store.folder, trial, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_campaign_or_is_there_already_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="no such folder"):
        materialise(tmp_path / "none", "0", tmp_path / "out")
    (tmp_path / "out").mkdir()
    with pytest.raises(ResultsError, match="exists already"):
        materialise(store.folder, "0", tmp_path / "out")
