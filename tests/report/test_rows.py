from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from evomerge.candidate.trial import Estimate, Failure, FailureKind, Outcome, TaskScores
from evomerge.report.rows import (
    Goal,
    Row,
    factor,
    higher_is_better,
    item_scores,
    signed,
    split_scores,
)
from evomerge.report.statistics import wilson

UP = Goal("up", "acc", "acc")
DOWN = Goal("down", "ppl", "ppl", higher_is_better=False, searched_higher_is_better=False)


def test_a_task_of_exact_matches_has_a_wilson_interval(lab: SimpleNamespace) -> None:
    scores = split_scores(Outcome({"up": lab.task_scores([1.0] * 6 + [0.0] * 2, "acc")}), [UP])
    value = scores.tasks["up"]["acc"]
    assert (value.value, value.n) == (0.75, 8)
    assert (value.low, value.high) == pytest.approx(wilson(6, 8))
    assert value.stderr == pytest.approx(math.sqrt(0.75 * 0.25 / 7))
    assert scores.objective is not None
    assert scores.objective.value == 0.75
    assert scores.searched is None


def test_the_objective_is_the_weighted_mean_of_what_is_reported(lab: SimpleNamespace) -> None:
    goals = [Goal("a", "gold", "acc", weight=1.0), Goal("b", "gold", "acc", weight=3.0)]
    both = {
        "a": {"acc": (1.0, 1.0), "gold": (-1.0, -2.0)},
        "b": {"acc": (0.0, 1.0), "gold": (-4.0, -4.0)},
    }
    found = {
        task: TaskScores(
            ("x", "y"), metrics, {m: Estimate(float(np.mean(v))) for m, v in metrics.items()}
        )
        for task, metrics in both.items()
    }
    scores = split_scores(Outcome(found), goals)
    assert scores.objective is not None
    assert scores.objective.value == pytest.approx((1 * 1.0 + 3 * 0.5) / 4)
    assert scores.objective.n == 4
    assert scores.searched is not None
    assert scores.searched.value == pytest.approx((1 * -1.5 + 3 * -4.0) / 4)


def test_what_is_missing_stays_missing(lab: SimpleNamespace) -> None:
    found = Outcome({"up": lab.task_scores([1.0, 0.0], "acc")})
    assert split_scores(found, [UP, Goal("other", "acc", "acc")]).objective is None
    searched_only = split_scores(found, [Goal("up", "acc", "exact_match")])
    assert searched_only.objective is None
    assert searched_only.searched is not None


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_missing(value: float) -> None:
    found = Outcome({"up": TaskScores(("x",), {"acc": (value,)}, {"acc": Estimate(value)})})
    scores = split_scores(found, [UP])
    assert scores.objective is None
    assert scores.tasks == {"up": {}}


def test_a_failure_has_a_reason_and_no_values() -> None:
    scores = split_scores(Outcome(failure=Failure(FailureKind.OUT_OF_MEMORY, "8 GB")), [UP])
    assert scores.failure == "out of memory: 8 GB"
    assert (scores.objective, scores.tasks) == (None, {})


def test_directions() -> None:
    assert higher_is_better([UP, DOWN])
    assert not higher_is_better([DOWN])
    assert signed(DOWN, [UP, DOWN]) == -1
    assert signed(DOWN, [DOWN]) == 1


def test_metrics_of_opposed_directions_are_subtracted(lab: SimpleNamespace) -> None:
    found = {"up": lab.task_scores([1.0, 0.0], "acc"), "down": lab.task_scores([3.0, 5.0], "ppl")}
    both = split_scores(Outcome(found), [UP, DOWN]).objective
    alone = split_scores(Outcome(found), [DOWN]).objective
    assert both is not None
    assert both.value == pytest.approx((0.5 - 4.0) / 2)
    assert alone is not None
    assert alone.value == 4.0


def test_an_aggregate_that_is_no_mean_has_no_item_scores() -> None:
    values = (-1.0, -2.0)
    perplexity = TaskScores(("x", "y"), {"ppl": values}, {"ppl": Estimate(math.exp(1.5), 0.5)})
    assert item_scores(perplexity, "ppl") is None
    value = split_scores(Outcome({"down": perplexity}), [DOWN]).tasks["down"]["ppl"]
    assert value.low == pytest.approx(math.exp(1.5) - 1.96 * 0.5, abs=1e-3)
    pairs = TaskScores(("x",), {"f1": ((1, 0),)}, {"f1": Estimate(0.5)})
    assert item_scores(pairs, "f1") is None
    assert item_scores(pairs, "other") is None


def test_a_row_answers_by_split(lab: SimpleNamespace) -> None:
    scores = split_scores(Outcome({"up": lab.task_scores([1.0, 0.0], "acc")}), [UP])
    row = Row("base", "base", None, lab.recipe(), {"search": scores})
    assert row.objective("search") == 0.5
    assert row.objective("holdout") is None
    assert row.reported("holdout", UP) is None
    reported = row.reported("search", UP)
    assert reported is not None
    assert reported.value == 0.5
    assert row.renamed("other").name == "other"


def test_shares_of_the_best_expert_are_what_is_meant(lab: SimpleNamespace) -> None:
    goals = [
        replace(UP, normalized=True, best=0.5, weight=3.0),
        replace(DOWN, normalized=True, best=2.0),
    ]
    found = {
        "up": lab.task_scores([1.0, 0.0] * 4, "acc"),
        "down": lab.task_scores([4.0] * 8, "ppl"),
    }
    both = split_scores(Outcome(found), goals).objective
    assert both is not None
    assert both.value == pytest.approx((3 * 1.0 + 2 / 4) / 4)
    assert (both.low, both.high) == (None, None)  # 2 / value is no mean over items
    expert = lab.task_scores([1.0, 0.0, 0.0, 1.0] * 2, "acc")
    goals[0] = replace(goals[0], reference=expert)
    (alone,) = (split_scores(Outcome(found), goals[:1]).objective,)
    assert alone is not None
    assert alone.value == 1.0
    assert alone.low is not None
    assert alone.low < 1.0
    assert higher_is_better(goals[1:])


def test_what_an_item_counts() -> None:
    share = replace(UP, normalized=True, best=0.5)
    assert factor(share, [share]) == 2.0
    assert factor(replace(share, best=None), [share]) == 1.0
    assert factor(replace(share, best=0.0), [share]) == 1.0
    assert factor(DOWN, [UP, DOWN]) == -1.0
    assert factor(replace(DOWN, normalized=True, best=2.0), [share]) is None
