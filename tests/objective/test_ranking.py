from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.objective import Objectives, Ranked, finalists, loss_of, ranking

MISSING = st.lists(st.floats(-1, 1), min_size=2, max_size=2).map(tuple)


def scored(number: int, values: tuple[float, ...], violations: tuple[float, ...] = ()) -> Ranked:
    return Ranked(number, values, violations)


@pytest.fixture
def mean(made: SimpleNamespace) -> Objectives:
    return Objectives(made.campaign())


@pytest.fixture
def pareto(made: SimpleNamespace) -> Objectives:
    """Up in `exam`, three times as heavy as down in `text`."""
    return Objectives(made.campaign(mode="pareto"))


def test_trials_that_meet_the_constraints_stand_first(mean: Objectives) -> None:
    trials = [scored(0, (9.0,), (0.5,)), scored(1, (1.0,), (0.0,)), scored(2, (2.0,), (-1.0,))]
    ranked = ranking(mean, trials)
    assert [one.number for one in ranked] == [2, 1, 0]
    assert ranked[0].values == (2.0,)
    assert ranked[2].violations == (0.5,)


def test_a_front_heeds_each_direction(pareto: Objectives) -> None:
    trials = [scored(0, (0.5, 3.0)), scored(1, (0.9, 3.0)), scored(2, (0.5, 2.0))]
    found = [(one.number, one.front) for one in ranking(pareto, trials)]
    assert found == [(1, 0), (2, 0), (0, 1)]


def test_finalists_of_a_front_include_its_ends(pareto: Objectives) -> None:
    trials = [
        scored(0, (0.2, 1.0)),  # the end of `text`
        scored(1, (0.8, 2.5)),
        scored(2, (1.0, 9.0)),  # the end of `exam`
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
    losses = loss_of(first, mine), loss_of(second, theirs)
    if totals[0] == 0 < totals[1]:
        assert losses[0] < losses[1]
    elif totals[0] == totals[1] == 0:
        assert (losses[0] <= losses[1]) or first < second
    elif 0 < totals[0] < totals[1]:
        assert losses[0] <= losses[1]


def test_without_constraints_the_loss_is_the_value() -> None:
    assert loss_of(0.7, ()) == -0.7
    assert -1 < loss_of(1e6, (0.0,)) < loss_of(-1e6, (0.0,)) < 1
    assert loss_of(1e6, (0.25, 0.5)) == 1.75
