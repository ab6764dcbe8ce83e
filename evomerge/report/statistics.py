"""Means over tasks with their intervals, and paired tests: pure functions of per-item scores.

A *stratum* holds the items of one task; an objective is the weighted mean of its strata's means, so sign
flips stay within a task. What is random is seeded: a report made twice is the same report.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # its parts are imported where they are first used
from numpy.typing import NDArray

from evomerge.report.intervals import (
    Ends,
    Floats,
    added,
    is_binary,
    of_differences,
    of_scores,
    share,
)

FLIPS = 19_999
EXACT_OUTCOMES = 1_000_000
_SIGNIFICANT_DIGITS = 12
_CHUNK = 4_000_000


@dataclass(frozen=True)
class Stratum:
    """One task's items.

    Attributes:
        values: Scores `[items]`.
        weight: The task's share in the objective, negative where less is better; they need not sum to 1.
        divisor: Scores `[items]` of the model that `values` are shares of: what counts is the mean of the
            values as a share of the mean of these, which were measured on the same items.
        minus: Scores `[items]` that are subtracted from the values, item by item.
    """

    values: Floats
    weight: float = 1.0
    divisor: Floats | None = None
    minus: Floats | None = None

    @property
    def counted(self) -> Floats:
        """The values, or the differences."""
        return self.values if self.minus is None else self.values - self.minus

    @property
    def unit(self) -> float:
        """What the values count in: the mean of the divisor; 1 where there is none."""
        return 1.0 if self.divisor is None else float(self.divisor.mean())

    @property
    def mean(self) -> float:
        """What the task is worth in the objective, before its weight; NaN where the divisor is 0."""
        return float(self.counted.mean()) / self.unit if self.unit else math.nan

    @property
    def is_binary(self) -> bool:
        """Whether every score is 0 or 1."""
        return is_binary(self.values) and (self.minus is None or is_binary(self.minus))

    def interval(self, part: float = 1.0) -> Ends | None:
        """Return the 95 % interval of `mean`, None where the items cannot carry one.

        `part`: one that reaches out by a part of the quantile.
        """
        ends = (
            of_scores(self.values, part)
            if self.minus is None
            else of_differences(self.values, self.minus, part)
        )
        if ends is None or self.divisor is None:
            return ends
        return share(self.counted, self.divisor, ends, part)


@dataclass(frozen=True)
class PairedTest:
    """A two-sided paired test of "no difference".

    Attributes:
        difference: Weighted mean over tasks of the mean difference.
        low: Lower end of its 95 % interval.
        high: Upper end.
        p: Probability, under random signs, of a difference at least as far from 0.
        n: Items compared.
        method: `exact McNemar`, `exact sign flip` or `sign flip, N draws`.
    """

    difference: float
    low: float
    high: float
    p: float
    n: int
    method: str


def weighted_mean(strata: Sequence[Stratum]) -> float:
    """Return the weighted mean of the strata's means."""
    return sum(weight * one.mean for weight, one in zip(_weights(strata), strata, strict=True))


def interval(strata: Sequence[Stratum]) -> Ends | None:
    """Return the 95 % interval of `weighted_mean`, or None where the items of a task cannot carry one.

    Each task has the interval of its kind, and these are added.
    """
    intervals = [one.interval for one in strata]
    return added([one.mean for one in strata], intervals, _weights(strata))


def paired_test(strata: Sequence[Stratum], *, seed: int = 0) -> PairedTest | None:
    """Test paired differences by flipping the sign of each item's difference.

    The statistic is the weighted mean over tasks. All sign patterns are counted where their outcomes are
    few, else `FLIPS` of them are drawn. On one task of 0/1 scores this is McNemar's exact test.

    Args:
        strata: Per task, the scores of the first, `minus` those of the second.
        seed: Draws signs.

    Returns:
        None where the items are too few for an interval.
    """
    ends = interval(strata)
    if ends is None:
        return None
    difference = weighted_mean(strata)
    steps, counts = _steps(strata)
    outcomes = float(np.prod(counts + 1.0))
    if outcomes <= EXACT_OUTCOMES:
        p = _exact_p(difference, steps, counts)
        is_mcnemar = len(strata) == 1 and strata[0].is_binary
        method = "exact McNemar" if is_mcnemar else "exact sign flip"
    else:
        p = _drawn_p(difference, steps, counts, np.random.default_rng(seed))
        method = f"sign flip, {FLIPS} draws"
    n = sum(stratum.values.size for stratum in strata)
    return PairedTest(difference, *ends, p, n, method)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Correct p-values for their number (S. Holm 1979); the order is kept."""
    corrected = [1.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = running
    return tuple(corrected)


def _weights(strata: Sequence[Stratum]) -> list[float]:
    """Return the weights, their sizes summing to 1."""
    total = sum(abs(one.weight) for one in strata)
    return [one.weight / total for one in strata]


def _steps(strata: Sequence[Stratum]) -> tuple[Floats, NDArray[np.int64]]:
    """Return the distinct sizes of an item's pull on the statistic, and how many items have each."""
    pulls = np.concatenate(
        [
            np.abs(one.counted * (weight / one.unit / one.values.size))
            for weight, one in zip(_weights(strata), strata, strict=True)
        ]
    )
    pulls = pulls[pulls > 0]
    if pulls.size == 0:
        return np.zeros(0), np.zeros(0, dtype=np.int64)
    digits = _SIGNIFICANT_DIGITS - 1 - int(np.floor(np.log10(pulls.max())))
    steps, counts = np.unique(np.round(pulls, digits), return_counts=True)
    return steps, counts.astype(np.int64)


def _exact_p(difference: float, steps: Floats, counts: NDArray[np.int64]) -> float:
    sums, chances = np.zeros(1), np.ones(1)
    for step, count in zip(steps, counts, strict=True):
        positive = np.arange(count + 1)
        chance = scipy.stats.binom.pmf(positive, count, 0.5)
        sums = np.add.outer(sums, step * (2.0 * positive - count)).ravel()
        chances = np.multiply.outer(chances, chance).ravel()
    return float(min(1.0, chances[_as_far(sums, difference)].sum()))


def _drawn_p(
    difference: float, steps: Floats, counts: NDArray[np.int64], rng: np.random.Generator
) -> float:
    sums = np.zeros(FLIPS)
    shared = counts > 1
    for step, count in zip(steps[shared], counts[shared], strict=True):
        sums += step * (2.0 * rng.binomial(count, 0.5, size=FLIPS) - count)
    alone = steps[~shared]
    rows = max(1, _CHUNK // max(1, alone.size))
    for start in range(0, FLIPS, rows) if alone.size else ():
        stop = min(start + rows, FLIPS)
        heads = rng.integers(0, 2, size=(stop - start, alone.size), dtype=np.int8)
        sums[start:stop] += heads @ (2.0 * alone) - alone.sum()
    # the observed pattern is one of those possible: counting it keeps the test valid
    return float((1 + np.count_nonzero(_as_far(sums, difference))) / (FLIPS + 1))


def _as_far(sums: Floats, difference: float) -> NDArray[np.bool_]:
    return np.asarray(np.abs(sums) >= abs(difference) * (1 - 1e-9))
