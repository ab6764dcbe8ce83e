"""Trials from best to worst: by value, or by fronts where there are several values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.trial import Candidate


@dataclass(frozen=True)
class Ranked:
    """A completed trial in a ranking.

    Attributes:
        candidate: What was evaluated.
        values: Its objective values.
        front: 0: no other trial is better in one value and as good in all; 1: none once those are
            taken away; and so on.
    """

    candidate: Candidate
    values: tuple[float, ...]
    front: int


def fronts(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the front of every row (non-dominated sorting, Deb et al. 2002).

    Args:
        values: Shape [trials, objectives], higher is better.

    Returns:
        Shape [trials], from 0; equal rows share a front.
    """
    result = np.full(len(values), -1)
    front = 0
    while (result < 0).any():
        left = np.flatnonzero(result < 0)
        rows = values[left]
        dominated = [
            bool(((rows >= row).all(axis=1) & (rows > row).any(axis=1)).any()) for row in rows
        ]
        result[left[~np.array(dominated)]] = front
        front += 1
    return result


def order(values: Sequence[Sequence[float]], means: Sequence[float]) -> list[tuple[int, int]]:
    """Return (row, front) from best to worst: by front, within it by mean, the earlier of equals.

    Args:
        values: Rows of objective values, higher is better.
        means: The weighted mean of each row.
    """
    if not values:
        return []
    found = fronts(np.asarray(values, dtype=np.float64))
    rows = sorted(range(len(values)), key=lambda row: (found[row], -means[row], row))
    return [(row, int(found[row])) for row in rows]
