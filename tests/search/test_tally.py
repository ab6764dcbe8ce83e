from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from evomerge.candidate.cost import Cost
from evomerge.candidate.trial import Failure, FailureKind, Outcome, Pruned
from evomerge.search.samplers.sampler import Measurement
from evomerge.search.tally import EXHAUSTED, Ended, Tally


def take(tally: Tally, number: int, *values: float, missing: float = 0.0) -> None:
    tally.take(number, Outcome(cost=Cost(items=10)), Measurement(values, 0.0, (missing,)))


def test_what_is_counted() -> None:
    tally = Tally()
    take(tally, 0, 0.5)
    take(tally, 1, 0.4)
    failed = Outcome(failure=Failure(FailureKind.MERGE, "no"), cost=Cost(items=3))
    tally.take(2, failed, None)
    pruned = Outcome(cost=Cost(items=4), pruned=Pruned("behind", 1))
    tally.take(3, pruned, Measurement((9.0,), -9.0))
    assert (tally.told, tally.failed, tally.pruned, tally.items) == (4, 1, 1, 27)
    assert list(tally.scored) == [0, 1]
    assert tally.best_value == 0.5  # an estimate is nobody's best


def test_the_best_meets_the_constraints_and_is_one_number() -> None:
    tally = Tally()
    take(tally, 0, 0.9, missing=0.1)
    assert tally.best_value is None
    take(tally, 1, -0.5)
    assert tally.best_value == -0.5
    for mode, values in (("pareto", (0.5, 0.5)), ("pareto", (30.0,)), ("tradeoff", (0.5, 0.5))):
        several = Tally(mode)
        take(several, 0, *values)
        assert several.best_value is None


def test_trials_are_a_budget(driver: ModuleType, tmp_path: Path) -> None:
    campaign = driver.fake_campaign(tmp_path / "out", trials=3)
    assert Tally(asked=2).ended(campaign, 0) is None
    assert Tally(asked=3).ended(campaign, 0) is Ended.TRIALS


@pytest.mark.parametrize("budget", ["hours", "item_evaluations", "target"])
def test_another_budget_alone_leaves_trials_without_a_limit(
    driver: ModuleType, tmp_path: Path, budget: str
) -> None:
    campaign = driver.fake_campaign(tmp_path / "out", trials=None, **{budget: 10_000})
    assert campaign.search.trials is None
    assert Tally(asked=5000).ended(campaign, 0) is None


def test_it_ends_where_nothing_new_is_found(driver: ModuleType, tmp_path: Path) -> None:
    campaign = driver.fake_campaign(tmp_path / "out")
    assert Tally(repeats=EXHAUSTED - 1).ended(campaign, 0) is None
    assert Tally(repeats=EXHAUSTED).ended(campaign, 0) is Ended.EXHAUSTED


@pytest.mark.parametrize(
    ("items", "pending", "spent"),
    [(120, 0, False), (121, 0, True), (80, 40, False), (80, 41, True)],
)
def test_items_are_a_budget_that_covers_what_is_in_flight(
    driver: ModuleType, tmp_path: Path, items: int, pending: int, spent: bool
) -> None:
    campaign = driver.fake_campaign(tmp_path / "out", item_evaluations=200)
    assert campaign.items_per_trial == 80
    assert Tally(items=items).ended(campaign, pending) is (Ended.ITEMS if spent else None)
    assert Tally(items=items).affords(campaign, 80 + pending) is not spent


def test_a_target_is_a_budget(driver: ModuleType, tmp_path: Path) -> None:
    campaign = driver.fake_campaign(tmp_path / "out", target=0.8)
    assert Tally(best_value=0.79).ended(campaign, 0) is None
    assert Tally(best_value=0.8).ended(campaign, 0) is Ended.TARGET
