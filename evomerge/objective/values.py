"""Metrics' directions, and a value in shares of another model's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from evomerge.candidate.trial import Split
from evomerge.config import Objective

Better = Callable[[str, str], bool]
"""(task, metric) → whether a higher value is better."""

LOWER_IS_BETTER = frozenset(
    {
        "bits_per_byte",
        "brier_score",
        "byte_perplexity",
        "perplexity",
        "teacher_divergence",
        "ter",
        "word_perplexity",
    }
)
"""Those of ours and of lm-eval's registered metrics that are better when lower."""

LOGARITHMS = frozenset({"gold_loglikelihood"})
"""Metrics in nats: their share is that of the probabilities, as it is 1 / share of the perplexities."""

BEST_VALUES: Mapping[str, float] = {
    "acc": 1.0,
    "acc_bytes": 1.0,
    "acc_norm": 1.0,
    "exact_match": 1.0,
    "f1": 1.0,
    "gold_exact_match": 1.0,
    "gold_loglikelihood": 0.0,
    "gold_probability": 1.0,
}
"""The best value that one item can have, by metric, where that is known."""

LARGEST_RATIO = 1e3
"""An error that is nearly gone is as good as this many times less: no share is infinite."""


def higher_is_better(task: str, metric: str) -> bool:
    """Return lm-eval's own direction of a metric, for tasks that state none."""
    return metric.split(",")[0] not in LOWER_IS_BETTER


def recorded_directions(facts: Mapping[str, Any]) -> Better:
    """Return the directions that a store's facts hold; lm-eval's own where they hold none."""
    known = facts.get("higher_is_better") or {}

    def better(task: str, metric: str) -> bool:
        return bool(known.get(task, {}).get(metric, higher_is_better(task, metric)))

    return better


def best_value(metric: str, values: Iterable[float], *, higher: bool) -> float | None:
    """Return the best value that an item can have by a metric.

    Where higher is better, a metric that is not known is taken as one from 0 to 1 if all its values are;
    where lower is better, as one of at least 0 likewise.

    Args:
        metric: Its name, with or without a filter.
        values: Those of models that were scored.
        higher: Whether higher is better.

    Returns:
        None where no bound is known.
    """
    if not higher:
        return 0.0 if all(value >= 0 for value in values) else None
    known = BEST_VALUES.get(metric.split(",")[0])
    return 1.0 if known is None and all(0 <= value <= 1 for value in values) else known


def metric_on(goal: Objective, split: Split) -> str:
    """Return the metric that counts on a split: the searched one on `search`, else the reported one."""
    return goal.metric if split == "search" else goal.report


def weighted_mean(objectives: Sequence[Objective], values: Sequence[float]) -> float:
    """Return Σ weight · value / Σ weight."""
    total = sum(goal.weight for goal in objectives)
    return sum(goal.weight * value for goal, value in zip(objectives, values, strict=True)) / total


def ratio(value: float, best: float, metric: str, *, higher: bool) -> float | None:
    """Return a value as a share of `best`, of which more is always better and 1 is as good.

    A metric better when higher: value / best. Better when lower: best / value, at most `LARGEST_RATIO`.
    A log-likelihood: exp(value - best), the ratio of the probabilities.

    Returns:
        None where `best` is 0 or negative (log-likelihoods apart), so that nothing can be a share of it.
    """
    if metric in LOGARITHMS:
        return math.exp(min(value - best, math.log(LARGEST_RATIO)))
    if best <= 0:
        return None
    if higher:
        return value / best
    return LARGEST_RATIO if value * LARGEST_RATIO <= best else best / value


def is_proportional(metric: str, *, higher: bool) -> bool:
    """Tell whether `ratio` is proportional to the value, so that it commutes with means over items."""
    return higher and metric not in LOGARITHMS
