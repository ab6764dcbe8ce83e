from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.objective import Objectives
from evomerge.search.ranking import Scored, best_value, finalists, ranked_loss, ranking

MISSING = st.lists(st.floats(-1, 1), min_size=2, max_size=2).map(tuple)


def scored(number: int, values: tuple[float, ...], violations: tuple[float, ...] = ()) -> Scored:
    return Scored(number, values, violations)


@pytest.fixture
def mean(driver: ModuleType, tmp_path: Path) -> Objectives:
    return Objectives(driver.fake_campaign(tmp_path / "out"))


@pytest.fixture
def pareto(driver: ModuleType, tmp_path: Path) -> Objectives:
    """Up in `near`, three times as heavy as down in `text`."""
    return Objectives(driver.fake_campaign(tmp_path / "out", "pareto"))


def test_trials_that_meet_the_conditions_stand_first(mean: Objectives) -> None:
    trials = [scored(0, (9.0,), (0.5,)), scored(1, (1.0,), (0.0,)), scored(2, (2.0,), (-1.0,))]
    ranked = ranking(mean, trials)
    assert [one.number for one in ranked] == [2, 1, 0]
    assert ranked[0].values == (2.0,)
    assert ranked[2].violations == (0.5,)
    assert best_value(mean, trials) == 2.0


def test_the_best_value_is_nobodys_who_misses_a_condition(
    mean: Objectives, pareto: Objectives
) -> None:
    assert best_value(mean, [scored(0, (9.0,), (0.5,))]) is None
    assert best_value(mean, []) is None
    assert best_value(pareto, [scored(0, (9.0, 1.0))]) is None


def test_a_front_heeds_each_direction(pareto: Objectives) -> None:
    trials = [scored(0, (0.5, 3.0)), scored(1, (0.9, 3.0)), scored(2, (0.5, 2.0))]
    found = [(one.number, one.front) for one in ranking(pareto, trials)]
    assert found == [(1, 0), (2, 0), (0, 1)]


def test_finalists_of_a_front_include_its_ends(pareto: Objectives) -> None:
    trials = [
        scored(0, (0.2, 1.0)),  # the end of `text`
        scored(1, (0.8, 2.5)),
        scored(2, (1.0, 9.0)),  # the end of `near`
        scored(3, (0.9, 2.6)),  # the best mean
        scored(4, (0.1, 9.0)),
    ]
    ranked = ranking(pareto, trials)
    assert ranked[0].number == 3
    assert finalists(pareto, ranked) == [3, 2, 0, 1, 4]
    assert finalists(pareto, []) == []


def test_finalists_of_a_mean_are_the_first(mean: Objectives) -> None:
    ranked = ranking(mean, [scored(0, (1.0,)), scored(1, (3.0,)), scored(2, (2.0,))])
    assert finalists(mean, ranked) == [1, 2, 0]


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), MISSING, MISSING)
def test_the_loss_orders_as_the_ranking_does(
    first: float, second: float, mine: tuple[float, ...], theirs: tuple[float, ...]
) -> None:
    """Feasible by value, before infeasible by what is missing."""
    totals = [sum(max(one, 0.0) for one in missing) for missing in (mine, theirs)]
    losses = ranked_loss(first, mine), ranked_loss(second, theirs)
    if totals[0] == 0 < totals[1]:
        assert losses[0] < losses[1]
    elif totals[0] == totals[1] == 0:
        assert (losses[0] <= losses[1]) or first < second
    elif 0 < totals[0] < totals[1]:
        assert losses[0] <= losses[1]


def test_without_conditions_the_loss_is_the_value() -> None:
    assert ranked_loss(0.7, ()) == -0.7
    assert -1 < ranked_loss(1e6, (0.0,)) < ranked_loss(-1e6, (0.0,)) < 1
    assert ranked_loss(1e6, (0.25, 0.5)) == 1.75
