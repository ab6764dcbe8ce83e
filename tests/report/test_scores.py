from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from evomerge.candidate.cost import Cost
from evomerge.candidate.trial import Estimate, Failure, FailureKind, Outcome, TaskScores
from evomerge.report.intervals import wilson
from evomerge.report.rows import Row
from evomerge.report.scores import estimated_scores, item_scores, mean_sign, paired, split_scores
from evomerge.report.summary import Goal

UP = {"task": "up", "metric": "acc"}
DOWN = {"task": "down", "metric": "ppl"}
A, B = ({"task": task, "metric": "acc"} for task in "ab")


def test_a_task_of_exact_matches_has_a_wilson_interval(lab: SimpleNamespace) -> None:
    found = Outcome({"up": lab.task_scores([1.0] * 6 + [0.0] * 2, "acc")})
    scores = split_scores(lab.aims([UP]), found)
    value = scores.tasks["up"]["acc"]
    assert (value.value, value.n) == (0.75, 8)
    assert (value.low, value.high) == pytest.approx(wilson(6, 8))
    assert value.stderr == pytest.approx(math.sqrt(0.75 * 0.25 / 7))
    assert scores.objective is not None
    assert scores.objective.value == 0.75
    assert scores.searched is None


def test_the_objective_is_the_weighted_mean_of_what_is_reported(lab: SimpleNamespace) -> None:
    goals = [
        {"task": t, "metric": "gold", "report": "acc", "weight": w}
        for t, w in zip("ab", (1, 3), strict=True)
    ]
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
    scores = split_scores(lab.aims(goals), Outcome(found))
    assert scores.objective is not None
    assert scores.objective.value == pytest.approx((1 * 1.0 + 3 * 0.5) / 4)
    assert scores.objective.n == 4
    assert scores.searched is not None
    assert scores.searched.value == pytest.approx((1 * -1.5 + 3 * -4.0) / 4)


def test_what_is_missing_stays_missing(lab: SimpleNamespace) -> None:
    found = Outcome({"up": lab.task_scores([1.0, 0.0], "acc")})
    assert split_scores(lab.aims([UP, A]), found).objective is None
    searched_only = split_scores(lab.aims([{**UP, "report": "exact_match"}]), found)
    assert searched_only.objective is None
    assert searched_only.searched is not None


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_missing(lab: SimpleNamespace, value: float) -> None:
    found = Outcome({"up": TaskScores(("x",), {"acc": (value,)}, {"acc": Estimate(value)})})
    scores = split_scores(lab.aims([UP]), found)
    assert scores.objective is None
    assert scores.tasks == {"up": {}}


def test_a_failure_has_a_reason_and_no_values(lab: SimpleNamespace) -> None:
    failed = Outcome(failure=Failure(FailureKind.OUT_OF_MEMORY, "8 GB"))
    scores = split_scores(lab.aims([UP]), failed)
    assert scores.failure == "out of memory: 8 GB"
    assert (scores.objective, scores.tasks, scores.rank) == (None, {}, None)


def test_metrics_of_opposed_directions_are_subtracted(lab: SimpleNamespace) -> None:
    found = {"up": lab.task_scores([1.0, 0.0], "acc"), "down": lab.task_scores([3.0, 5.0], "ppl")}
    both, alone = lab.aims([UP, DOWN]), lab.aims([DOWN])
    assert (mean_sign(both), mean_sign(alone)) == (1, -1)
    mixed = split_scores(both, Outcome(found)).objective
    assert mixed is not None
    assert mixed.value == pytest.approx((0.5 - 4.0) / 2)
    scores = split_scores(alone, Outcome(found))
    assert scores.objective is not None
    assert (scores.objective.value, scores.quality) == (4.0, -4.0)
    assert scores.objective.low is not None
    assert scores.objective.low < 4.0


def test_an_aggregate_that_is_no_mean_has_no_item_scores(lab: SimpleNamespace) -> None:
    values = (-1.0, -2.0)
    perplexity = TaskScores(("x", "y"), {"ppl": values}, {"ppl": Estimate(math.exp(1.5), 0.5)})
    assert item_scores(perplexity, "ppl") is None
    scores = split_scores(lab.aims([DOWN]), Outcome({"down": perplexity}))
    assert scores.tasks["down"]["ppl"].low == pytest.approx(math.exp(1.5) - 1.96 * 0.5, abs=1e-3)
    pairs = TaskScores(("x",), {"f1": ((1, 0),)}, {"f1": Estimate(0.5)})
    assert item_scores(pairs, "f1") is None
    assert item_scores(pairs, "other") is None


def test_a_row_answers_by_split(lab: SimpleNamespace) -> None:
    found = Outcome({"up": lab.task_scores([1.0, 0.0], "acc")})
    row = Row("base", "base", None, lab.recipe(), {"search": split_scores(lab.aims([UP]), found)})
    goal = Goal("up", "acc", "acc")
    assert row.objective("search") == 0.5
    assert row.objective("holdout") is None
    assert row.reported("holdout", goal) is None
    reported = row.reported("search", goal)
    assert reported is not None
    assert reported.value == 0.5


def test_shares_of_the_best_expert_are_what_is_meant(lab: SimpleNamespace) -> None:
    goals = [{**UP, "weight": 3.0}, DOWN]
    expert = Outcome(
        {
            "up": lab.task_scores([1.0, 0.0, 0.0, 1.0] * 2, "acc"),
            "down": lab.task_scores([2.0] * 8, "ppl"),
        }
    )
    found = Outcome(
        {
            "up": lab.task_scores([1.0, 0.0] * 4, "acc"),
            "down": lab.task_scores([4.0] * 8, "ppl"),
        }
    )
    shares: dict[str, Any] = {"normalize": "best_expert", "experts": {"tools": expert}}
    both = split_scores(lab.aims(goals, **shares), found).objective
    assert both is not None
    assert both.value == pytest.approx((3 * 1.0 + 2 / 4) / 4)
    assert (both.low, both.high) == (None, None)  # 2 / value is no mean over items
    alone = split_scores(lab.aims(goals[:1], **shares), found).objective
    assert alone is not None
    assert alone.value == 1.0
    assert alone.low is not None
    assert alone.low < 1.0
    elsewhere = lab.task_scores([1.0, 0.0] * 4, "acc", items=[f"other{i}" for i in range(8)])
    shares["experts"] = {"tools": Outcome({"up": elsewhere})}
    unlike = split_scores(lab.aims(goals[:1], **shares), found).objective
    assert unlike is not None
    assert (unlike.value, unlike.low) == (1.0, None)
    assert mean_sign(lab.aims([DOWN], **shares)) == 1


def test_items_are_paired_by_id_not_by_place(lab: SimpleNamespace) -> None:
    items = [f"i{n}" for n in range(30)]
    values = np.random.default_rng(0).integers(0, 2, 30).astype(float)
    shuffled = np.random.default_rng(1).permutation(30)
    order = [items[n] for n in shuffled]
    first = Outcome({t: lab.task_scores(values.tolist(), "acc", items=items) for t in "ab"})
    second = Outcome(
        {t: lab.task_scores(values[shuffled].tolist(), "acc", items=order) for t in "ab"}
    )
    test = paired(lab.aims([A, B]), first, second)
    assert test is not None
    assert (test.difference, test.p) == (0.0, 1.0)


def test_unlike_items_are_not_paired(lab: SimpleNamespace) -> None:
    first = Outcome({t: lab.task_scores([1.0, 0.0], "acc") for t in "ab"})
    other = Outcome({t: lab.task_scores([1.0, 0.0], "acc", items=["x", "y"]) for t in "ab"})
    assert paired(lab.aims([A, B]), first, other) is None
    assert paired(lab.aims([A, B]), first, Outcome({"a": first.scores["a"]})) is None


def test_one_binary_task_is_mcnemar(lab: SimpleNamespace) -> None:
    first = Outcome({"a": lab.task_scores([1.0] * 9 + [0.0], "acc")})
    second = Outcome({"a": lab.task_scores([0.0] * 10, "acc")})
    test = paired(lab.aims([A]), first, second)
    assert test is not None
    assert test.method == "exact McNemar"
    assert test.p == pytest.approx(2 / 2**9)


def test_shares_of_the_best_expert_are_paired_as_they_count(lab: SimpleNamespace) -> None:
    """One item of a task of which the best expert does half weighs as two of one that it does all of."""
    expert = Outcome(
        {"a": lab.task_scores([1.0, 0.0], "acc"), "b": lab.task_scores([1.0] * 2, "acc")}
    )
    first = Outcome({t: lab.task_scores([1.0, 1.0], "acc") for t in "ab"})
    second = Outcome({t: lab.task_scores([0.0, 1.0], "acc") for t in "ab"})
    shares: dict[str, Any] = {"normalize": "best_expert", "experts": {"tools": expert}}
    test = paired(lab.aims([A, B], **shares), first, second)
    assert test is not None
    assert test.difference == pytest.approx((0.5 / 0.5 + 0.5) / 2)
    losses = lab.aims([A], down=["acc"], **shares)
    assert paired(losses, first, second) is None  # best / value is no mean over items


@pytest.fixture
def part(lab: SimpleNamespace) -> Outcome:
    """Three tasks, two items of each, of a trial that was pruned."""
    scores = {task: lab.task_scores([1.0, 1.0]) for task in lab.tasks}
    return Outcome(scores, cost=Cost(0.1, 1.0, 6, 12))


def test_the_estimate_is_shown_not_the_mean_of_some_items(
    lab: SimpleNamespace, part: Outcome
) -> None:
    goals = [{"task": task, "metric": "exact_match"} for task in lab.tasks]
    found = estimated_scores(lab.aims(goals, "search"), (0.4,), part)
    assert found.objective is not None
    assert (found.objective.value, found.objective.low, found.objective.n) == (0.4, None, 6)
    assert (found.searched, found.tasks, found.net) == (None, {}, None)
    assert found.estimated
    # what was searched is no estimate of what is reported
    goals = [{**goal, "report": "f1"} for goal in goals]
    found = estimated_scores(lab.aims(goals, "search"), (0.4,), part)
    assert found.objective is None
    assert found.searched is not None
    assert found.searched.value == 0.4


def test_costs_go_back_on_the_mean(lab: SimpleNamespace, part: Outcome) -> None:
    goals = [{"task": task, "metric": "exact_match"} for task in lab.tasks]
    aims = lab.aims(goals, "search", costs=[{"cost": "parameters", "weight": 0.25}])
    found = estimated_scores(aims, (0.4,), part)
    assert found.objective is not None
    assert found.objective.value == pytest.approx(0.65)
    assert (found.net, found.costs) == (0.4, {"parameters": 1.0})


def test_of_a_front_every_objective_is_estimated(lab: SimpleNamespace, part: Outcome) -> None:
    goals = [{"task": task, "metric": "exact_match"} for task in lab.tasks]
    found = estimated_scores(lab.aims(goals, "search", mode="pareto"), (0.1, 0.2, 0.6), part)
    assert [found.tasks[task]["exact_match"].value for task in lab.tasks] == [0.1, 0.2, 0.6]
    assert found.objective is not None
    assert found.objective.value == pytest.approx(0.3)
