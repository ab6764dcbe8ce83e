"""What one model scored on one split: values with intervals, the mean of the objectives, costs, constraints.

Values come from an `Outcome`'s per-item scores; what an outcome lacks is missing here too (None), never
filled in.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from evomerge.candidate import Candidate
from evomerge.candidate.trial import Estimate, Outcome, TaskScores
from evomerge.config import Objective
from evomerge.objective import Objectives, is_proportional, metric_on, ratio, total_violation
from evomerge.report.intervals import Floats, of_scores
from evomerge.report.statistics import PairedTest, Stratum, interval, paired_test

Z_95 = statistics.NormalDist().inv_cdf(0.975)


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
        failure: Why no scores exist.
        outcome: The per-item scores behind the values.
        costs: Cost → relative to the base's, for the costs that are objectives or constraints are on.
        quality: The reported mean, of which more is better.
        net: `quality` less weight · cost: what ranks models where costs come off the mean; else None.
        violations: By how much each constraint is missed; met where at most 0.
        estimated: The trial was pruned: the values are estimates.
    """

    objective: Value | None
    searched: Value | None
    tasks: Mapping[str, Mapping[str, Value]]
    failure: str | None = None
    outcome: Outcome | None = field(default=None, repr=False, compare=False)
    costs: Mapping[str, float] = field(default_factory=dict)
    quality: float | None = None
    net: float | None = None
    violations: tuple[float, ...] = ()
    estimated: bool = False

    @property
    def rank(self) -> tuple[float, float] | None:
        """What orders models, the greater the better: constraints first, then the mean less costs."""
        value = self.quality if self.net is None else self.net
        return None if value is None else (-total_violation(self.violations), value)


def mean_sign(aims: Objectives) -> float:
    """Return -1 where less of the shown mean is better, else 1.

    The mean is shown as it is where every metric is better when lower. Where both directions meet, those
    better when lower count negative; of shares of the best expert's values more is always better.
    """
    goals = aims.campaign.objectives
    higher = any(aims.better(goal.task, metric_on(goal, aims.split)) for goal in goals)
    return 1.0 if higher or aims.campaign.normalize == "best_expert" else -1.0


def reported(aims: Objectives) -> Objectives:
    """Return the same aims by the metrics that are reported."""
    return replace(aims, split="select")


def searched(aims: Objectives) -> Objectives:
    """Return the same aims by the metrics that the sampler sees."""
    return replace(aims, split="search")


def split_scores(
    aims: Objectives, outcome: Outcome, candidate: Candidate | None = None
) -> SplitScores:
    """Aggregate one outcome by the aims of its split; the candidate is for the cost in parameters."""
    if outcome.failure is not None:
        failure = f"{outcome.failure.kind}: {outcome.failure.reason}"
        return SplitScores(None, None, {}, failure=failure, outcome=outcome)
    campaign = aims.campaign
    objective = mean(reported(aims), outcome)
    quality = None if objective is None else mean_sign(reported(aims)) * objective.value
    costs = aims.costs(outcome, candidate)
    comes_off = quality is not None and costs and campaign.mode == "mean"
    differs = any(goal.metric != goal.report for goal in campaign.objectives)
    return SplitScores(
        objective=objective,
        searched=mean(searched(aims), outcome) if differs else None,
        tasks={
            task: {
                metric: task_value(scores, metric, estimate)
                for metric, estimate in scores.values.items()
                if math.isfinite(estimate.value)
            }
            for task, scores in outcome.scores.items()
        },
        outcome=outcome,
        costs=_by_name(aims, outcome, candidate),
        quality=quality,
        net=quality - aims.charge(costs) if quality is not None and comes_off else None,
        violations=aims.violations(outcome, candidate),
    )


def estimated_scores(
    aims: Objectives, values: Sequence[float], outcome: Outcome, candidate: Candidate | None = None
) -> SplitScores:
    """Return a pruned trial's scores on the search items: the estimates that the sampler saw, no intervals.

    Means over the items that were scored are not shown: a race scores the most informative ones first, so
    they are not a random sample.
    """
    campaign = aims.campaign
    pareto, comes_off = campaign.mode == "pareto", campaign.mode == "mean"
    charge = aims.charge(aims.costs(outcome, candidate)) if comes_off else 0.0
    quality = aims.mean(values) + charge
    items = sum(len(scores.items) for scores in outcome.scores.values())
    estimate = Value(mean_sign(aims) * quality, n=items)
    same = all(goal.metric == goal.report for goal in campaign.objectives)
    pairs = zip(campaign.objectives, values, strict=False)  # costs follow
    return SplitScores(
        objective=estimate if same else None,
        searched=None if same else estimate,
        tasks={
            goal.task: {goal.metric: Value(value, n=len(outcome.scores[goal.task].items))}
            for goal, value in pairs
            if pareto and goal.task in outcome.scores
        },
        outcome=outcome,
        costs=_by_name(aims, outcome, candidate),
        quality=quality if same else None,
        net=values[0] if campaign.costs and comes_off else None,
        violations=aims.violations(outcome, candidate),
        estimated=True,
    )


def mean(aims: Objectives, outcome: Outcome) -> Value | None:
    """Return the weighted mean as it is shown, None where one of its values is missing."""
    quality = aims.quality(outcome)
    if quality == -math.inf:
        return None
    parts = _strata(aims, outcome)
    low, high = (None if parts is None else interval(parts)) or (None, None)
    n = sum(len(outcome.scores[goal.task].items) for goal in aims.campaign.objectives)
    return Value(mean_sign(aims) * quality, low, high, n=n)


def paired(aims: Objectives, first: Outcome, second: Outcome) -> PairedTest | None:
    """Test the weighted mean, first minus second, item by item.

    Of shares of the best expert's values the interval counts that these were measured on the same items; p
    takes them as the weights of the tasks.

    Returns:
        None where a task is missing, the items differ or are too few, or a task's part does not average
        per-item scores.
    """
    strata = _strata(aims, first, second)
    return None if strata is None else paired_test(strata)


def on_shared_items(
    aims: Objectives, first: Outcome, second: Outcome
) -> tuple[Outcome, Outcome] | None:
    """Return two outcomes on the items, by id, that both were scored on.

    None where they share none of a task, or its value is not a mean over the items, of which some are not
    shared.
    """
    parts: tuple[dict[str, TaskScores], dict[str, TaskScores]] = ({}, {})
    for goal in aims.campaign.objectives:
        pair = first.scores.get(goal.task), second.scores.get(goal.task)
        if pair[0] is None or pair[1] is None:
            return None
        shared = set(pair[0].items) & set(pair[1].items)
        for scores, part in zip((pair[0], pair[1]), parts, strict=True):
            found = _part(scores, metric_on(goal, aims.split), shared)
            if found is None:
                return None
            part[goal.task] = found
    return replace(first, scores=parts[0]), replace(second, scores=parts[1])


def _part(scores: TaskScores, metric: str, shared: Collection[str]) -> TaskScores | None:
    """Return the scores by one metric on the shared items, None where they cannot be told."""
    if len(shared) == len(scores.items):
        return scores
    values = item_scores(scores, metric)
    kept = [place for place, item in enumerate(scores.items) if item in shared]
    if values is None or not kept:
        return None
    return TaskScores(
        tuple(scores.items[place] for place in kept),
        {metric: tuple(values[kept].tolist())},
        {metric: Estimate(float(values[kept].mean()))},
    )


def item_scores(scores: TaskScores, metric: str) -> Floats | None:
    """Return a metric's per-item scores `[items]` where its aggregate is their mean, else None.

    Perplexities, F1 over the whole set and the like are not means: items can be neither resampled nor paired.
    """
    values, estimate = scores.metrics.get(metric), scores.values.get(metric)
    if not values or estimate is None:
        return None
    if not all(isinstance(value, bool | int | float | np.number) for value in values):
        return None
    array = np.asarray(values, dtype=np.float64)
    agrees = np.isclose(array.mean(), estimate.value, rtol=1e-6, atol=1e-9)
    return array if bool(np.isfinite(array).all() and agrees) else None


def task_value(scores: TaskScores, metric: str, estimate: Estimate) -> Value:
    """Give a metric its interval: that of its items' mean, else value ± z · lm-eval's standard error."""
    array, stderr = item_scores(scores, metric), estimate.stderr
    if stderr is not None and not math.isfinite(stderr):
        stderr = None
    low = high = None
    if array is not None:
        low, high = of_scores(array) or (None, None)
    elif stderr is not None:
        low, high = estimate.value - Z_95 * stderr, estimate.value + Z_95 * stderr
    return Value(estimate.value, low, high, stderr, len(scores.items))


def _strata(
    aims: Objectives, outcome: Outcome, minus: Outcome | None = None
) -> list[Stratum] | None:
    """Return each task's items as they count in the mean; None where a task's part is not a mean of items."""
    found = []
    for goal in aims.campaign.objectives:
        metric, scores = metric_on(goal, aims.split), outcome.scores.get(goal.task)
        values = None if scores is None else item_scores(scores, metric)
        if scores is None or values is None:
            return None
        theirs = None
        if minus is not None:
            theirs = _on_items(minus.scores.get(goal.task), metric, scores.items)
            if theirs is None:
                return None
        counted = _counted(aims, goal, metric, scores.items)
        if counted is None:
            return None
        sign, divisor = counted
        found.append(Stratum(values, sign * goal.weight, divisor, theirs))
    return found


def _counted(
    aims: Objectives, goal: Objective, metric: str, items: Sequence[str]
) -> tuple[float, Floats | None] | None:
    """Return the sign of a score in the mean, and (of shares) the best expert's scores.

    None where a share is not proportional to the score, or the expert was not scored on these very items.
    """
    higher = aims.better(goal.task, metric)
    if aims.campaign.normalize == "best_expert":
        expert = aims.references.best("best_expert", goal.task, metric, higher=higher)
        best = 0.0 if expert is None else expert.values[metric].value
        if expert is not None and ratio(best, best, metric, higher=higher) is not None:
            if not is_proportional(metric, higher=higher):
                return None
            theirs = _on_items(expert, metric, items)
            return None if theirs is None else (1.0, theirs)
    return (1.0 if higher or mean_sign(aims) < 0 else -1.0), None


def _on_items(scores: TaskScores | None, metric: str, items: Sequence[str]) -> Floats | None:
    """Return per-item scores in the order of `items`; None where these are not the items scored."""
    values = None if scores is None else item_scores(scores, metric)
    if scores is None or values is None or set(scores.items) != set(items):
        return None
    place = {item: index for index, item in enumerate(scores.items)}
    return values[[place[item] for item in items]]


def _by_name(aims: Objectives, outcome: Outcome, candidate: Candidate | None) -> dict[str, float]:
    found = {name: aims.cost(name, outcome, candidate) for name in aims.campaign.asked_costs}
    return {name: cost for name, cost in found.items() if math.isfinite(cost)}
