"""Per-item search scores as the objective weighs them, and the paired test of two candidates by them."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real

import numpy as np
import scipy  # its parts are imported where they are first used

from evomerge.candidate.trial import Outcome
from evomerge.objective import Objectives
from evomerge.search.samplers.unit_cube import Vector

Contributions = Callable[[Outcome], Vector | None]
"""Outcome → contribution of each item to the objective, more is better, shape [items]; None: unknown."""

RESAMPLES = 1999
"""Random sign flips of one test; where fewer are possible, all of them are counted."""


def contributions_of(aims: Objectives) -> Contributions:
    """Return what takes the items of an outcome apart.

    It knows none of a candidate that was given up before its last item, of metrics without a finite number
    for each item, and in campaigns whose objective is not a mean over items: a Pareto front, or with costs.

    Args:
        aims: Of the `search` items.
    """
    goals, campaign = aims.campaign.objectives, aims.campaign

    def contributions(outcome: Outcome) -> Vector | None:
        if campaign.mode != "mean" or campaign.costs or outcome.pruned is not None:
            return None
        parts = []
        for goal in goals:
            scores = outcome.scores.get(goal.task)
            values = None if scores is None else scores.metrics.get(goal.metric)
            if not values or not all(isinstance(one, Real) for one in values):
                return None
            sign = 1.0 if aims.better(goal.task, goal.metric) else -1.0
            share = sign * aims.weight(goal) / len(values)
            parts.append(share * np.array(values, dtype=np.float64))
        found = np.concatenate(parts)
        return found if np.isfinite(found).all() else None

    return contributions


def p_worse(one: Vector, other: Vector) -> float:
    """Return the one-sided p-value that a candidate is as good as another one.

    Signs of the paired differences are flipped: all ways where they can be counted, else at random with a
    fixed seed (Fisher 1935, The Design of Experiments, section 21).

    Args:
        one: Contributions of the candidate, shape [items].
        other: Those of the other one, of the same items.
    """
    differences = other - one
    differing = differences[differences != 0]
    if not differing.size:
        return 1.0

    def total(values: Vector, axis: int) -> Vector:
        found: Vector = values.sum(axis=axis)
        return found

    if differing.size == 1:  # which SciPy does not resample
        return 0.5 if differing[0] > 0 else 1.0
    found = scipy.stats.permutation_test(
        (differing,),
        total,
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        alternative="greater",
        rng=0,
    )
    return float(found.pvalue)
