"""One row of the leaderboard: a model, and what it scored on each split.

Values come from an `Outcome`'s per-item scores; what an outcome lacks is missing here too (None), never
filled in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np

from evomerge.candidate import Recipe
from evomerge.candidate.trial import Cost, Estimate, Outcome, Split, TaskScores
from evomerge.objective import is_proportional, ratio
from evomerge.report.statistics import Floats, Stratum, interval

Kind = Literal["base", "expert", "baseline", "finalist", "winner"]
KINDS: tuple[Kind, ...] = ("base", "expert", "baseline", "finalist", "winner")
Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Goal:
    """One objective, as reports need it.

    Attributes:
        task: The task.
        metric: What the sampler saw.
        report: What picks the winner and is reported.
        weight: Share in the weighted mean.
        higher_is_better: Direction of `report`.
        searched_higher_is_better: Direction of `metric`.
        normalized: Whether the mean takes values as shares of the best expert's.
        best: The best expert's value of `report` on the split at hand; None where there is none.
        searched_best: The same of `metric`.
        reference: That expert's scores on the task.
        searched_reference: Scores of the expert that is best by `metric`.
    """

    task: str
    metric: str
    report: str
    weight: float = 1.0
    higher_is_better: bool = True
    searched_higher_is_better: bool = True
    normalized: bool = False
    best: float | None = None
    searched_best: float | None = None
    reference: TaskScores | None = field(default=None, repr=False, compare=False)
    searched_reference: TaskScores | None = field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return plain values, without per-item scores."""
        scores = ("reference", "searched_reference")
        names = [one.name for one in fields(self) if one.name not in scores]
        return {name: getattr(self, name) for name in names}

    def side(self, *, searched: bool) -> tuple[str, bool, float | None]:
        """Return metric, direction and the best expert's value: what was searched, or what is reported."""
        if searched:
            return self.metric, self.searched_higher_is_better, self.searched_best
        return self.report, self.higher_is_better, self.best


@dataclass(frozen=True)
class Value:
    """An aggregate with its 95 % interval.

    Attributes:
        value: The aggregate.
        low: Lower end; None where the scores carry no interval.
        high: Upper end.
        stderr: lm-eval's standard error, for tasks' metrics.
        n: Items behind it.
    """

    value: float
    low: float | None = None
    high: float | None = None
    stderr: float | None = None
    n: int = 0


@dataclass(frozen=True)
class SplitScores:
    """One model on one split.

    Attributes:
        objective: Weighted mean of the reported metrics, as shares of the best expert's where the campaign
            says so; None where one of them is missing.
        searched: The same of the metrics that the sampler saw; None also where they are the reported ones.
        tasks: Task → metric → value.
        failure: Why there are no scores.
        outcome: The per-item scores behind the values; None for a row read back from JSON.
        costs: Cost → relative to the base's, for the costs that are objectives.
        net: The mean less weight · cost: what ranks models where costs come off the mean; else None.
        violations: By how much each condition is missed; met where at most 0.
        estimated: The model was given up before its last item: the values are estimates.
    """

    objective: Value | None
    searched: Value | None
    tasks: Mapping[str, Mapping[str, Value]]
    failure: str | None = None
    outcome: Outcome | None = field(default=None, repr=False, compare=False)
    costs: Mapping[str, float] = field(default_factory=dict)
    net: float | None = None
    violations: tuple[float, ...] = ()
    estimated: bool = False


@dataclass(frozen=True)
class Row:
    """One model of the leaderboard.

    Attributes:
        name: What it is called, such as `trial 17`.
        kind: Its part in the campaign.
        trial: The trial's number; None for parents and baselines.
        recipe: How to rebuild it.
        splits: What it scored; a split on which it was not scored is absent.
        cost: Summed over its evaluations.
        front: In Pareto mode, whether no other merge is better in every objective; else None.
        key: Its identity, as `trial.row_key` returns it, whatever name its user chose.
    """

    name: str
    kind: Kind
    trial: int | None
    recipe: Recipe
    splits: Mapping[Split, SplitScores]
    cost: Cost = field(default_factory=Cost)
    front: bool | None = None
    key: str = ""

    def objective(self, split: Split) -> float | None:
        """Return the reported objective on `split`, None where there is none."""
        scores = self.splits.get(split)
        return None if scores is None or scores.objective is None else scores.objective.value

    def reported(self, split: Split, goal: Goal) -> Value | None:
        """Return the reported value of one objective on `split`, None where there is none."""
        scores = self.splits.get(split)
        return None if scores is None else scores.tasks.get(goal.task, {}).get(goal.report)

    def renamed(self, name: str) -> Row:
        """Return the same row under another name."""
        return replace(self, name=name)


def higher_is_better(goals: Sequence[Goal], *, searched: bool = False) -> bool:
    """Tell the direction of the weighted mean: lower is better only where it is so of every goal.

    Where both directions meet, those metrics of which less is better count negative; of shares of the best
    expert's values more is always better.
    """
    return any(goal.normalized or goal.side(searched=searched)[1] for goal in goals)


def signed(goal: Goal, goals: Sequence[Goal], *, searched: bool = False) -> float:
    """Return -1 for a metric of which less is better among others of which more is, else 1."""
    upward = goal.side(searched=searched)[1]
    return -1.0 if higher_is_better(goals, searched=searched) and not upward else 1.0


def factor(goal: Goal, goals: Sequence[Goal], *, searched: bool = False) -> float | None:
    """Return what an item's score counts in the weighted mean, such as 1 / the best expert's value.

    Returns:
        None where a share is not proportional to the score, as of metrics of which less is better.
    """
    metric, upward, best = goal.side(searched=searched)
    if (
        goal.normalized
        and best is not None
        and ratio(best, best, metric, higher=upward) is not None
    ):
        return 1.0 / best if is_proportional(metric, higher=upward) else None
    return signed(goal, goals, searched=searched)


def divisor(
    goal: Goal, items: Sequence[str], scale: float, *, searched: bool = False
) -> tuple[Floats | None, bool]:
    """Return what an item's score is a share of, item by item.

    Args:
        goal: An objective.
        items: Their order.
        scale: What `factor` returned.
        searched: Of the searched metric.

    Returns:
        The best expert's scores times `scale` `[items]`, or None where scores are no shares; and whether
        that is known: not where the expert's scores on these very items are not at hand.
    """
    metric, upward, best = goal.side(searched=searched)
    if not goal.normalized or best is None or ratio(best, best, metric, higher=upward) is None:
        return None, True
    scores = goal.searched_reference if searched else goal.reference
    values = None if scores is None else item_scores(scores, metric)
    if scores is None or values is None or set(scores.items) != set(items):
        return None, False
    place = {item: index for index, item in enumerate(scores.items)}
    return values[[place[item] for item in items]] * scale, True


def split_scores(outcome: Outcome, goals: Sequence[Goal]) -> SplitScores:
    """Aggregate one outcome.

    Args:
        outcome: Per-item scores, or a failure.
        goals: The objectives.
    """
    if outcome.failure is not None:
        failure = f"{outcome.failure.kind}: {outcome.failure.reason}"
        return SplitScores(None, None, {}, failure=failure, outcome=outcome)
    differs = any(goal.metric != goal.report for goal in goals)
    return SplitScores(
        objective=_objective(outcome, goals, searched=False),
        searched=_objective(outcome, goals, searched=True) if differs else None,
        tasks={task: _task_values(scores) for task, scores in outcome.scores.items()},
        outcome=outcome,
    )


def item_scores(scores: TaskScores, metric: str) -> Floats | None:
    """Return a metric's per-item scores `[items]` where its aggregate is their mean, else None.

    Perplexities, F1 over the whole set and the like are no means: neither resampling of items here nor a
    paired test speaks of them.
    """
    values, estimate = scores.metrics.get(metric), scores.values.get(metric)
    if not values or estimate is None:
        return None
    if not all(isinstance(value, bool | int | float | np.number) for value in values):
        return None
    array = np.asarray(values, dtype=np.float64)
    agrees = np.isclose(array.mean(), estimate.value, rtol=1e-6, atol=1e-9)
    return array if bool(np.isfinite(array).all() and agrees) else None


def _objective(outcome: Outcome, goals: Sequence[Goal], *, searched: bool) -> Value | None:
    total = value = 0.0
    items = 0
    strata: list[Stratum] = []
    for goal in goals:
        metric = goal.side(searched=searched)[0]
        scores = outcome.scores.get(goal.task)
        estimate = None if scores is None else scores.values.get(metric)
        if scores is None or estimate is None or not math.isfinite(estimate.value):
            return None
        total += goal.weight
        value += goal.weight * _counted(goal, goals, estimate.value, searched)
        items += len(scores.items)
        array, scale = item_scores(scores, metric), factor(goal, goals, searched=searched)
        if array is not None and scale is not None:
            shared, known = divisor(goal, scores.items, scale, searched=searched)
            if known:
                strata.append(Stratum(array * scale, goal.weight, shared))
    ends = interval(strata) if len(strata) == len(goals) else None
    low, high = ends or (None, None)
    return Value(value / total, low, high, n=items)


def _counted(goal: Goal, goals: Sequence[Goal], value: float, searched: bool) -> float:
    """Return what a task's value counts in the weighted mean."""
    metric, upward, best = goal.side(searched=searched)
    share = None
    if goal.normalized and best is not None:
        share = ratio(value, best, metric, higher=upward)
    return signed(goal, goals, searched=searched) * value if share is None else share


def _task_values(scores: TaskScores) -> dict[str, Value]:
    return {
        metric: _task_value(scores, metric, estimate)
        for metric, estimate in scores.values.items()
        if math.isfinite(estimate.value)
    }


def _task_value(scores: TaskScores, metric: str, estimate: Estimate) -> Value:
    """Wilson for 0/1 scores, bootstrap for other means, else value ± z · lm-eval's standard error."""
    array = item_scores(scores, metric)
    stderr = estimate.stderr
    if stderr is not None and not math.isfinite(stderr):
        stderr = None
    low = high = None
    if array is not None:
        ends = interval([Stratum(array)])
        low, high = ends or (None, None)
    elif stderr is not None:
        low, high = estimate.value - Z_95 * stderr, estimate.value + Z_95 * stderr
    return Value(estimate.value, low, high, stderr, len(scores.items))
