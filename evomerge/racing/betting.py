"""How strongly the items scored so far speak against "on all items it is at least as good".

The items are a finite population, and the only thing that is random is the order in which they are
drawn, which is ours. A gambler who starts with 1 bets, before each draw, that the rest will not make up
for what is lost so far. If the candidate is at least as good as its rival over all items, every bet is
fair or worse, and the capital ever exceeds 1 / α with probability α at most (Ville's inequality),
however many looks are taken, however many items there are, and whatever the differences are like. No
model of the differences enters, only an upper bound on each.

Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", 2024, section 5
(sampling without replacement); the control variate as in Shekhar, Xu, Lipton, Liang and Ramdas,
"Risk-limiting financial audits via weighted sampling without replacement", 2023.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_STAKES = np.array([0.15, 0.3, 0.6])  # for deficits of so many standard deviations an item
_MOST = 0.9  # share of the capital that one item may cost
_ROUNDING = 1e-9  # of the largest sum: nothing is certain by less
_TINY = 1e-200
_PRIOR = 8  # items that the guessed spread counts for


def log_capital(
    differences: NDArray[np.float64],
    bounds: NDArray[np.float64],
    expected: NDArray[np.float64],
    spread: float,
) -> float:
    """Return the logarithm of the largest capital so far; -log of a p-value valid at any look.

    The sum over all N items is t. Before an item is drawn, its expectation is (t - S) / n, with S the sum
    of those drawn and n the number of the rest; if t ≥ 0 that is -S / n or more. With a control variate g
    known for every item, n · (d - g) + Σ_rest g has expectation t - S, and a small variance where g
    predicts d well. It is bet that it stays below -S.

    Args:
        differences: Candidate minus rival on the items drawn, in their random order, shape [drawn].
        bounds: The most that each difference can be, all items in that order, shape [items].
        expected: A guess of each difference, likewise.
        spread: A guess of the standard deviation of differences about `expected`.

    Returns:
        Infinity where what is left cannot make up for the loss; 0 or less where nothing is won.
    """
    drawn, items = len(differences), len(bounds)
    if not drawn:
        return 0.0
    largest = max(np.abs(bounds).max(), np.abs(expected).max(), _TINY)
    least = _ROUNDING * items * largest
    if differences.sum() + bounds[drawn:].sum() < -least:
        return np.inf
    left = items - np.arange(drawn)
    lost = -_before(differences)  # -S
    guess = _after(expected)[:drawn]  # Σ_rest g
    gap = np.maximum.accumulate((bounds - expected)[::-1])[::-1][:drawn]
    residuals = differences - expected[:drawn]
    gains = lost - (left * residuals + guess)  # fair or worse if t ≥ 0
    worst = np.maximum(guess + left * gap - lost, least)  # the most that a draw can cost
    seen = _PRIOR + np.arange(drawn)
    deviations = np.sqrt((_PRIOR * spread**2 + _before(residuals**2)) / seen)
    with np.errstate(divide="ignore"):
        stakes = np.minimum(_STAKES[:, None] / (left * deviations), _MOST / worst)
    capital = np.cumsum(np.log1p(stakes * gains), axis=1)  # [stakes, drawn]
    return float(np.max(np.logaddexp.reduce(capital, axis=0)) - np.log(len(_STAKES)))


def _before(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of the values before each."""
    return np.concatenate([[0.0], np.cumsum(values)[:-1]])


def _after(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of each value and those after it."""
    return np.cumsum(values[::-1])[::-1]
