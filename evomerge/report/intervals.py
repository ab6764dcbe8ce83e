"""95 % intervals of means over items, in closed form: pure functions of arrays.

Each task's mean has the interval of its kind, which is not symmetric where the mean's distribution is not,
such as that of a proportion near 1. `part` asks for an interval that reaches out by a part of the quantile
only, as the sum of several means needs (`added`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import scipy  # its parts are imported where they are first used
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ends = tuple[float, float]
"""Lower and upper end."""
Interval = Callable[[float], Ends | None]
"""Part of the quantile → the interval of a mean."""

LEVEL = 0.95
_Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
_SYMMETRIC = 1e-6


def is_binary(values: Floats) -> bool:
    """Tell whether every score is 0 or 1."""
    return bool(np.all((values == 0) | (values == 1)))


def of_scores(values: Floats, part: float = 1.0) -> Ends | None:
    """Return the interval of the mean of scores `[items]`: Wilson's of 0/1 scores, else `skewed`.

    None for a single score that is not 0 or 1.
    """
    if is_binary(values):
        return wilson(int(values.sum()), values.size, part)
    return skewed(values, part) if values.size > 1 else None


def of_differences(first: Floats, second: Floats, part: float = 1.0) -> Ends | None:
    """Return the interval of the mean of first - second, paired scores `[items]`.

    Tango's of 0/1 scores, else Student's; None for a single pair that is not of 0/1 scores.
    """
    differences = first - second
    if is_binary(first) and is_binary(second):
        gains, losses = int((differences > 0).sum()), int((differences < 0).sum())
        return tango(gains, losses, first.size, part)
    return student(differences, part) if differences.size > 1 else None


def wilson(successes: int, n: int, part: float = 1.0) -> Ends:
    """Return the score interval of a proportion (E. B. Wilson 1927).

    Raises:
        ValueError: `n` is 0, or `successes` lies outside [0, n].
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"found {successes} of {n} items")
    rate, z2 = successes / n, (part * _Z) ** 2
    middle = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (rate * (1 - rate) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    # exact ends where there is nothing on that side
    low = 0.0 if successes == 0 else middle - half
    high = 1.0 if successes == n else middle + half
    return float(low), float(high)


@lru_cache(4096)
def tango(gains: int, losses: int, n: int, part: float = 1.0) -> Ends:
    """Return the score interval of the difference of two paired proportions (T. Tango 1998).

    Args:
        gains: Items that only the first has right.
        losses: Items that only the second has right.
        n: All items.
        part: Of the quantile.
    """
    z2, centre = (part * _Z) ** 2, (gains - losses) / n

    def beyond(difference: float) -> float:
        """Return how far outside a difference is: its squared score statistic less z², times its variance."""
        a, c = 2.0 * n, -losses * difference * (1 - difference)
        b = (2.0 * n - gains + losses) * difference - gains - losses
        lost = (np.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)  # its likeliest share of losses
        variance = (2 * lost + difference * (1 - difference)) / n
        return float((centre - difference) ** 2 - z2 * variance)

    def end(bound: float) -> float:
        start = centre + 1e-9 * (bound - centre)  # at the centre the variance may be 0
        if beyond(start) >= 0:
            return centre
        if beyond(bound) <= 0:
            return bound
        return float(scipy.optimize.brentq(beyond, start, bound))

    return end(-1.0), end(1.0)


def student(values: Floats, part: float = 1.0) -> Ends:
    """Return Student's interval of a mean."""
    half = part * _quantile(values.size) * _standard_error(values)
    return float(values.mean() - half), float(values.mean() + half)


def skewed(values: Floats, part: float = 1.0) -> Ends:
    """Return Student's interval of a mean, transformed for skewed values (P. Hall 1992, eq. 2.2).

    Log-likelihoods have a long tail below: Student's interval misses their mean too often on that side.
    """
    n, mean, error = values.size, float(values.mean()), _standard_error(values)
    deviations = values - mean
    cubed = float((deviations**2).mean()) ** 1.5
    skewness = float((deviations**3).mean()) / cubed / np.sqrt(n) if cubed > 0 else 0.0
    if abs(skewness) < _SYMMETRIC:
        return student(values, part)
    quantile = part * _quantile(n)
    shift = (
        part**2 * skewness / 6
    )  # of the second order in the quantile, as what skewness adds else

    def transformed(quantile: float) -> float:
        inner = 1 + skewness * (quantile - shift)
        return float(3 / skewness * (np.cbrt(inner) - 1))

    return mean - error * transformed(quantile), mean - error * transformed(-quantile)


def share(values: Floats, divisor: Floats, ends: Ends, part: float = 1.0) -> Ends | None:
    """Return the interval of mean(values) / mean(divisor), measured on the same items `[items]`.

    It holds every s for which the interval of mean(values) - s · mean(divisor) holds 0, where the ends of
    both are added in square, each side by itself, with their correlation (A. Donner and G. Y. Zou 2012);
    E. C. Fieller's interval (1954) where both are symmetric.

    Args:
        values: Scores, or differences of scores.
        divisor: Scores, of a positive mean.
        ends: The interval of mean(values).
        part: Of the quantile, as in `ends`.

    Returns:
        None where the divisor has no interval, or one that reaches 0; (1, 1) for the divisor itself.
    """
    if np.array_equal(values, divisor):
        return 1.0, 1.0
    bottom = of_scores(divisor, part)
    if bottom is None or bottom[0] <= 0:
        return None
    top, alike = float(values.mean()), 0.0
    if np.ptp(values) > 0 and np.ptp(divisor) > 0:
        alike = float(np.corrcoef(values, divisor)[0, 1])
    middle = float(divisor.mean())
    low = _least_share(top, top - ends[0], middle, bottom, alike)
    high = -_least_share(-top, ends[1] - top, middle, bottom, -alike)
    return low, high


def added(
    centres: Sequence[float], intervals: Sequence[Interval], weights: Sequence[float]
) -> Ends | None:
    """Return the interval of Σ weight · mean of independent means.

    Its ends are the least and the greatest that the sum can be where the squared distances of all means from
    their centres, in quantiles, add up to one quantile's: each mean takes the part that it has in the
    standard error of the sum on that side. So the sum of many is less skewed than each (of proportions of one
    size it is what G. Yan and X. G. Su 2010 have).

    Args:
        centres: What was measured.
        intervals: Of each, by the part of the quantile.
        weights: Negative where it is subtracted.

    Returns:
        None where one has no interval.
    """
    middles = [weight * centre for weight, centre in zip(weights, centres, strict=True)]
    whole = _weighed(intervals, weights, [1.0] * len(middles))
    if len(whole) < len(middles):
        return None
    total = []
    for side in (0, 1):
        reach = np.array([abs(one[side] - m) for one, m in zip(whole, middles, strict=True)])
        parts = reach / max(float(np.linalg.norm(reach)), np.finfo(float).tiny)
        total.append(sum(one[side] for one in _weighed(intervals, weights, parts.tolist())))
    return total[0], total[1]


def _weighed(
    intervals: Sequence[Interval], weights: Sequence[float], parts: Sequence[float]
) -> list[Ends]:
    """Return the intervals times the weights, without those that there are not."""
    found = []
    for interval, weight, part in zip(intervals, weights, parts, strict=True):
        ends = interval(part)
        if ends is not None:
            low, high = sorted((weight * ends[0], weight * ends[1]))
            found.append((low, high))
    return found


def _least_share(top: float, reach: float, divisor: float, ends: Ends, alike: float) -> float:
    """Return the least s with (top - s · divisor)² = reach² + (s · other)² - 2 · alike · reach · s · other.

    `reach`: from `top` to its lower end. `other`: from `divisor` to the end that makes the share less.
    """
    is_positive = top >= reach
    other = ends[1] - divisor if is_positive else divisor - ends[0]
    a, b, c = (
        divisor**2 - other**2,
        top * divisor - alike * reach * other,
        top**2 - reach**2,
    )
    root = float(np.sqrt(max(0.0, b * b - a * c)))
    # the two forms of a root of a s² - 2 b s + c, each where it does not divide by 0
    return c / (b + root) if is_positive and b + root > 0 else (b - root) / a


def _standard_error(values: Floats) -> float:
    return float(values.std(ddof=1) / np.sqrt(values.size))


@lru_cache(256)
def _quantile(n: int) -> float:
    return float(scipy.stats.t.ppf((1 + LEVEL) / 2, n - 1))
