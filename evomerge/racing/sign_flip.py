"""A sequential sign-flip test of paired differences on a finite set of items.

The null hypothesis: over all N items the candidate is as good as its rival, that is, the differences
add up to 0. At a look, k items are scored, with sum s, and the rest R is unknown. The law of S under the
null: the signs of the scored differences are flipped at random (Fisher's and Pitman's test; for 0/1
metrics McNemar's exact one), given that the rest makes up for it, R = -S, where R is taken as normal
with the variance that the disagreement of the unscored items predicts. For 0/1 metrics that is close to
the hypergeometric law of wins and losses drawn without replacement.

The looks spend the error budget α in proportion to the information gained (α(f) = α·f: Kim and DeMets,
"Design and analysis of group sequential tests based on the type I error spending rate function", 1987).
S at fraction f of the information, given a total of 0, is a Brownian bridge, and B(f) / (1 - f) is a
Brownian motion at time f / (1 - f); so the levels of the looks follow from the recursion of Armitage,
McPherson and Rowe ("Repeated significance tests on accumulating data", 1969).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm

_STEPS = 4096  # of Σ|c|, to which magnitudes are rounded; equal magnitudes stay equal
_FAR = 8.0  # beyond which the normal law has nothing to speak of
_LEGENDRE = np.polynomial.legendre.leggauss(128)
_NODES, _WEIGHTS = (_LEGENDRE[0] + 1) / 2, _LEGENDRE[1] / 2  # of a quadrature on [0, 1]


def p_value(contributions: NDArray[np.float64], fraction: float) -> float:
    """Return P(S ≤ s) if over all items the candidate is as good as its rival.

    Args:
        contributions: Weighted differences of the scored items, shape [items]; s is their sum.
        fraction: Share of the information that they hold, in (0, 1).

    Returns:
        Small where the candidate can hardly make up for what it lost; 1 where nothing differs.
    """
    nonzero = contributions[contributions != 0]
    if nonzero.size == 0:
        return 1.0
    steps = max(_STEPS, 16 * nonzero.size)
    sizes = np.rint(np.abs(nonzero) * (steps / np.abs(nonzero).sum())).astype(np.int64)
    scored = int((np.sign(nonzero).astype(np.int64) * sizes).sum())
    rest = float((sizes.astype(np.float64) ** 2).sum()) * (1 - fraction) / fraction  # Var R
    sums = np.arange(-sizes.sum(), sizes.sum() + 1)
    law = _sign_flip_law(sizes) * np.exp(-(sums**2) / (2 * rest))  # P(S = s) · P(R = -s)
    return float(law[sums <= scored].sum() / law.sum())


@lru_cache(maxsize=256)
def levels(fractions: tuple[float, ...], alpha: float) -> tuple[float, ...]:
    """Return the p-value at or below which each look gives up; over all of them the error is α.

    Args:
        fractions: Share of the information at each look, rising, each in (0, 1).
        alpha: The error budget.
    """
    found: list[float] = []
    points, mass = np.zeros(1), np.ones(1)  # law of z at the last look, of those not given up
    before, spent = 0.0, 0.0
    for fraction in fractions:
        time = fraction / (1 - fraction)
        if time <= 1.001 * before:  # nothing new
            found.append(0.0)
            continue
        kept, fresh = np.sqrt(before / time), np.sqrt(1 - before / time)
        here = kept * points  # z' = kept · z + fresh · ε
        bound = _quantile(here, fresh, mass, alpha * fraction - spent)
        found.append(float(norm.cdf(bound)))
        points = bound + (_FAR - bound) * _NODES
        density = norm.pdf((points[:, None] - here[None]) / fresh) / fresh
        mass = (_FAR - bound) * _WEIGHTS * (density @ mass)
        before, spent = time, alpha * fraction
    return tuple(found)


def fractions_of(shares: Sequence[float]) -> tuple[float, ...]:
    """Return the share of the information after each block but the last, from each block's own."""
    sums = np.cumsum(shares)
    return tuple((sums[:-1] / sums[-1]).tolist())


def _quantile(
    centres: NDArray[np.float64], width: float, mass: NDArray[np.float64], budget: float
) -> float:
    """Where the law Σ mass · N(centre, width²) has `budget` below it."""

    def beyond(bound: float) -> float:
        return float(norm.cdf((bound - centres) / width) @ mass) - budget

    return -_FAR if beyond(-_FAR) >= 0 else float(brentq(beyond, -_FAR, _FAR))


def _sign_flip_law(sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Law of Σ ± size with fair signs on -Σ size … Σ size, from its characteristic function."""
    count = 2 * int(sizes.sum()) + 1
    angles = np.arange(count) * (2 * np.pi / count)
    characteristic = np.ones(count)
    for size, times in zip(*np.unique(sizes, return_counts=True), strict=True):
        characteristic *= np.cos(size * angles) ** times
    return np.maximum(np.fft.fftshift(np.fft.ifft(characteristic).real), 0.0)
