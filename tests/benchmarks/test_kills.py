import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.faults import _campaign, kills

Folder = Callable[..., Path]
Point = _campaign.Point


def point(number: int, state: str = "complete", at: float = 0.5, value: float = -1.0) -> Point:
    return number, state, (("weight/facts", at),), None if state == "asked" else (value,)


THREE = [point(0), point(1, at=0.6, value=-0.5), point(2, at=0.7, value=-2.0)]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """Make results folders of which the trials, and the winner and its scores, are made up."""
    made: dict[Path, list[Point]] = {}

    def results(name: str, trials: list[Point], winner: int = 1, score: float = -0.6) -> Path:
        out = tmp_path / name / "out"
        out.mkdir(parents=True)
        made[out] = trials
        rows = [
            {"kind": "base", "trial": None, "splits": {"holdout": -3.0}},
            {"kind": "winner", "trial": winner, "splits": {"holdout": score}},
        ]
        (out / "leaderboard.json").write_text(json.dumps({"rows": rows}))
        return out

    monkeypatch.setattr(_campaign, "points", made.__getitem__)
    return results


def test_equal_campaigns_do_not_differ(results: Folder) -> None:
    assert kills.compared(results("whole", THREE), results("other", list(THREE))) == []


@pytest.mark.parametrize(
    "trials",
    [
        THREE[:2],
        THREE[1:],
        [*THREE, THREE[2]],
        [*THREE, point(3)],
        [THREE[0], point(1, at=0.61, value=-0.5), THREE[2]],
        [THREE[0], point(1, at=0.6, value=-0.4), THREE[2]],
        [*THREE[:2], point(2, "asked", 0.7)],
    ],
    ids=[
        "last lost",
        "first lost",
        "doubled",
        "one more",
        "elsewhere",
        "other value",
        "no outcome",
    ],
)
def test_other_trials_are_found(results: Folder, trials: list[Point]) -> None:
    (found,) = kills.compared(results("whole", THREE), results("other", trials))
    assert found.startswith(f"other: {len(trials)} trials for 3, unlike: ")


def test_a_trial_that_differs_is_named(results: Folder) -> None:
    other = [THREE[0], point(1, "failed"), THREE[2]]
    assert kills.compared(results("whole", THREE), results("other", other)) == [
        "other: 3 trials for 3, unlike: [1]"
    ]


@pytest.mark.parametrize("changes", [{"winner": 0}, {"score": -0.7}])
def test_another_winner_or_other_scores_of_it_are_found(results: Folder, changes: dict) -> None:
    whole, other = results("whole", THREE), results("other", THREE, **changes)
    assert kills.compared(whole, other) == ["other: another winner"]


def test_a_campaign_that_did_not_end_is_found(results: Folder) -> None:
    whole, other = results("whole", THREE), results("other", THREE)
    (other / "leaderboard.json").unlink()
    assert kills.compared(whole, other) == ["other: not finished"]


def test_evaluations_are_read_in_their_order(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert _campaign.evaluated(log) == []
    log.write_text('["trial 0", "search"]\n["trial 0", "select"]\n')
    assert _campaign.evaluated(log) == [("trial 0", "search"), ("trial 0", "select")]


def test_the_campaign_file_is_one(tmp_path: Path) -> None:
    from evomerge.config import Campaign

    file = _campaign.write(tmp_path / "x", sampler="gradient", trials=7, workers=2)
    campaign = Campaign.load(file)
    assert (campaign.search.sampler, campaign.search.trials, campaign.workers.count) == (
        "gradient",
        7,
        2,
    )
    assert campaign.out == str(tmp_path / "x" / "out")
