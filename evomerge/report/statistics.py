"""Intervals and paired tests on per-item scores: pure functions of arrays.

A *stratum* holds the items of one task; an objective is the weighted mean of its strata's means, so
resampling and sign flips stay within a task. Everything random is seeded: a report made twice is the
same report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # its parts are imported where they are first used
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RESAMPLES = 4_999
FLIPS = 19_999
EXACT_OUTCOMES = 1_000_000
LEVEL = 0.95
_SIGNIFICANT_DIGITS = 12
_FEW_VALUES = 8
_CHUNK = 4_000_000


@dataclass(frozen=True)
class Stratum:
    """One task's items.

    Attributes:
        values: Scores, or differences of scores, `[items]`.
        weight: The task's share in the objective; the shares need not sum to 1.
        divisor: Scores `[items]` of the model that `values` are shares of, in the same units, so that their
            mean is 1. It was measured on the same items: a resample of these divides by its own mean.
    """

    values: Floats
    weight: float = 1.0
    divisor: Floats | None = None


@dataclass(frozen=True)
class PairedTest:
    """A two-sided paired test of "no difference".

    Attributes:
        difference: Weighted mean over tasks of the mean difference.
        low: Lower end of its 95 % interval (bootstrap over items, within tasks).
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


def is_binary(values: Floats) -> bool:
    """Tell whether every score is 0 or 1."""
    return bool(np.all((values == 0) | (values == 1)))


def weighted_mean(strata: Sequence[Stratum]) -> float:
    """Return the weighted mean of the strata's means."""
    total = sum(stratum.weight for stratum in strata)
    return float(sum(stratum.weight * stratum.values.mean() for stratum in strata) / total)


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a proportion (E. B. Wilson 1927).

    Raises:
        ValueError: `n` is 0, or `successes` lies outside [0, n].
    """
    interval = scipy.stats.binomtest(successes, n).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap(strata: Sequence[Stratum], *, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of `weighted_mean`, resampling within each stratum.

    Resamples in which a divisor is 0 are left out.
    """
    return _ends(_resampled(strata, seed))


def interval(strata: Sequence[Stratum]) -> tuple[float, float] | None:
    """Return the 95 % interval of `weighted_mean`, or None where the items cannot carry one.

    One task of 0/1 scores: Wilson. Otherwise: bootstrap; of shares, values and divisor item by item. Tasks
    of 0/1 scores on which every item of every task agrees leave nothing to resample: the Wilson intervals
    are added in square (R. G. Newcombe 1998, method 10). None for a single number that is not 0 or 1, and
    for shares of a divisor that is 0 in more resamples than an end of the interval leaves out.
    """
    divisors = [stratum.divisor for stratum in strata if stratum.divisor is not None]
    binary = all(is_binary(stratum.values) for stratum in strata)
    constant = all(np.ptp(values) == 0 for values in (*(s.values for s in strata), *divisors))
    if binary and (constant or (len(strata) == 1 and not divisors)):
        return _square_and_add(strata)
    if any(stratum.values.size < 2 for stratum in strata):
        return None
    means = _resampled(strata, 0)
    return None if np.isnan(means).mean() > (1 - LEVEL) / 2 else _ends(means)


def paired_test(
    differences: Sequence[Stratum], *, binary: bool = False, seed: int = 0
) -> PairedTest:
    """Test paired differences by flipping the sign of each item's difference.

    The statistic is the weighted mean over tasks. All sign patterns are counted where their outcomes are
    few, else `FLIPS` of them are drawn. On one task of 0/1 scores this is McNemar's exact test.

    Args:
        differences: Per task, score minus score of the same items.
        binary: The scores were 0 or 1 (it only names the test).
        seed: Draws signs and resamples.
    """
    difference = weighted_mean(differences)
    steps, counts = _steps(differences)
    outcomes = float(np.prod(counts + 1.0))
    if outcomes <= EXACT_OUTCOMES:
        p = _exact_p(difference, steps, counts)
        method = "exact McNemar" if binary and len(differences) == 1 else "exact sign flip"
    else:
        p = _drawn_p(difference, steps, counts, np.random.default_rng(seed))
        method = f"sign flip, {FLIPS} draws"
    low, high = bootstrap(differences, seed=seed)
    n = sum(stratum.values.size for stratum in differences)
    return PairedTest(difference, low, high, p, n, method)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Correct p-values for their number (S. Holm 1979); the order is kept."""
    corrected = [1.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = running
    return tuple(corrected)


def _ends(means: Floats) -> tuple[float, float]:
    low, high = np.nanquantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _resampled(strata: Sequence[Stratum], seed: int) -> Floats:
    """Draw `weighted_mean` of resampled strata `[RESAMPLES]`; NaN where a divisor is 0."""
    rng = np.random.default_rng(seed)
    total = sum(stratum.weight for stratum in strata)
    means = np.zeros(RESAMPLES)
    for stratum in strata:
        if stratum.divisor is None:
            drawn = _resampled_means(stratum.values[np.newaxis], rng)[0]
        else:
            mean, divisor = _resampled_means(np.stack([stratum.values, stratum.divisor]), rng)
            drawn = np.divide(mean, divisor, out=np.full(RESAMPLES, np.nan), where=divisor > 0)
        means += stratum.weight / total * drawn
    return means


def _resampled_means(rows: Floats, rng: np.random.Generator) -> Floats:
    """Draw bootstrap means of rows `[rows, items]` over the same items; shape `[rows, RESAMPLES]`.

    Where items are of few kinds, these are drawn by their counts: some ten times faster.
    """
    kinds, counts = np.unique(rows, axis=1, return_counts=True)
    size = rows.shape[1]
    if counts.size <= _FEW_VALUES:
        drawn = rng.multinomial(size, counts / size, size=RESAMPLES)
        return np.asarray(kinds @ drawn.T / size)
    means = np.empty((len(rows), RESAMPLES))
    step = max(1, _CHUNK // rows.size)
    for start in range(0, RESAMPLES, step):
        stop = min(start + step, RESAMPLES)
        picked = rng.integers(0, size, size=(stop - start, size), dtype=np.uint32)
        means[:, start:stop] = rows[:, picked].mean(axis=2)
    return means


def _square_and_add(strata: Sequence[Stratum]) -> tuple[float, float]:
    total = sum(stratum.weight for stratum in strata)
    centre = weighted_mean(strata)
    below = above = 0.0
    for stratum in strata:
        share, mean = stratum.weight / total, stratum.values.mean()
        low, high = wilson(int(stratum.values.sum()), stratum.values.size)
        below += (share * (mean - low)) ** 2
        above += (share * (high - mean)) ** 2
    return float(centre - np.sqrt(below)), float(centre + np.sqrt(above))


def _steps(differences: Sequence[Stratum]) -> tuple[Floats, NDArray[np.int64]]:
    """Return the distinct sizes of an item's pull on the statistic, and how many items have each."""
    total = sum(stratum.weight for stratum in differences)
    pulls = np.concatenate(
        [
            np.abs(stratum.values) * (stratum.weight / total / stratum.values.size)
            for stratum in differences
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
