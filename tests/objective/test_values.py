from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.config import Objective
from evomerge.objective.values import (
    LARGEST_RATIO,
    best_value,
    higher_is_better,
    is_proportional,
    metric_on,
    ratio,
    recorded_directions,
    weighted_mean,
)

POSITIVE = st.floats(0.01, 100.0)


@pytest.mark.parametrize(
    ("metric", "better"),
    [("acc", True), ("exact_match,strict-match", True), ("bits_per_byte", False), ("ter,x", False)],
)
def test_lm_eval_knows_which_metrics_are_losses(metric: str, better: bool) -> None:
    assert higher_is_better("any", metric) is better


def test_recorded_directions_come_first() -> None:
    better = recorded_directions({"higher_is_better": {"t": {"ppl": False}}})
    assert not better("t", "ppl")
    assert better("u", "ppl")
    assert not recorded_directions({})("t", "perplexity")


def test_other_splits_use_the_reported_metric() -> None:
    goal = Objective(task="t", metric="gold_loglikelihood", report="acc")
    assert metric_on(goal, "search") == "gold_loglikelihood"
    assert metric_on(goal, "select") == metric_on(goal, "holdout") == "acc"


def test_the_mean_is_weighted() -> None:
    goals = [Objective(task="a", metric="m", weight=3.0), Objective(task="b", metric="m")]
    assert weighted_mean(goals, [1.0, 0.0]) == 0.75


def test_shares_of_the_best() -> None:
    assert ratio(0.6, 0.8, "acc", higher=True) == pytest.approx(0.75)
    assert ratio(10.0, 5.0, "ter", higher=False) == 0.5
    loss, best = -1.2, -0.2
    assert ratio(loss, best, "gold_loglikelihood", higher=True) == pytest.approx(
        ratio(math.exp(-loss), math.exp(-best), "perplexity", higher=False)
    )


@pytest.mark.parametrize("best", [0.0, -0.5])
def test_nothing_is_a_share_of_nothing(best: float) -> None:
    assert ratio(0.5, best, "acc", higher=True) is None
    assert ratio(0.5, best, "ter", higher=False) is None


def test_no_share_is_infinite() -> None:
    assert ratio(0.0, 5.0, "ter", higher=False) == LARGEST_RATIO
    assert ratio(0.0, -9e3, "gold_loglikelihood", higher=True) == pytest.approx(LARGEST_RATIO)


@pytest.mark.parametrize(("metric", "higher"), [("acc", True), ("ter", False)])
def test_what_is_not_a_number_stays_so(metric: str, higher: bool) -> None:
    share = ratio(math.nan, 0.5, metric, higher=higher)
    assert share is not None
    assert math.isnan(share)


@given(POSITIVE, POSITIVE, POSITIVE, st.booleans())
def test_more_is_always_better_and_one_is_as_good(
    first: float, second: float, best: float, higher: bool
) -> None:
    assert ratio(best, best, "m", higher=higher) == 1.0
    mine, theirs = (ratio(value, best, "m", higher=higher) for value in (first, second))
    assert mine is not None
    assert theirs is not None
    if first > second:
        assert mine >= theirs if higher else mine <= theirs


def test_only_plain_scores_keep_their_means() -> None:
    assert is_proportional("acc", higher=True)
    assert not is_proportional("ter", higher=False)
    assert not is_proportional("gold_loglikelihood", higher=True)


@pytest.mark.parametrize(
    ("metric", "values", "higher", "expected"),
    [
        ("acc", [0.0, 1.0], True, 1.0),
        ("exact_match,strict", [], True, 1.0),
        ("gold_loglikelihood", [-3.0], True, 0.0),
        ("my_score", [0.0, 0.4], True, 1.0),
        ("my_score", [0.0, 40.0], True, None),
        ("word_perplexity", [20.0, 3.0], False, 0.0),
        ("my_error", [-1.0, 3.0], False, None),
    ],
)
def test_the_best_value_that_an_item_can_have(metric, values, higher, expected):
    assert best_value(metric, values, higher=higher) == expected
