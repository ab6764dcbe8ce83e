"""Who stands before whom: fronts of several values, and constraints before values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def fronts(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the front of every row (non-dominated sorting, Deb et al. 2002).

    A row stands one behind the last front that holds a row which dominates it. In lexicographic order, from
    the largest on, those come before it, so that one pass is enough.

    Args:
        values: Shape [rows, objectives], higher is better.

    Returns:
        Shape [rows], from 0; equal rows share a front.
    """
    rows, inverse = np.unique(values, axis=0, return_inverse=True)
    place = len(rows) - 1 - inverse.reshape(-1)
    if values.shape[1] == 1:
        return place
    rows, found = rows[::-1], np.zeros(len(rows), dtype=np.int64)
    for at, row in enumerate(rows):
        dominating = found[:at][(rows[:at] >= row).all(axis=1)]
        found[at] = dominating.max() + 1 if dominating.size else 0
    return found[place]


def order(
    values: Sequence[Sequence[float]], means: Sequence[float], missing: Sequence[float] = ()
) -> list[tuple[int, int]]:
    """Return (row, front) from best to worst.

    What meets its constraints stands before what does not, by front, within it by mean, the earlier of
    equals; behind it the others, the nearer to meeting them first, a front for each distance (the
    feasibility rules of Deb 2000, "An efficient constraint handling method for genetic algorithms").

    Args:
        values: Rows of objective values, higher is better.
        means: The weighted mean of each row.
        missing: The total violation of each row's constraints, 0 where all are met; empty: no constraints.
    """
    totals = [max(total, 0.0) for total in missing] or [0.0] * len(values)
    meeting = [row for row, total in enumerate(totals) if total == 0]
    found: list[tuple[int, int]] = []
    if meeting:
        sorted_fronts = fronts(np.asarray([values[row] for row in meeting], dtype=np.float64))
        ranked = zip(sorted_fronts.tolist(), meeting, strict=True)
        found = [
            (row, front)
            for front, row in sorted(ranked, key=lambda pair: (pair[0], -means[pair[1]], pair[1]))
        ]
    behind = 1 + max((front for _, front in found), default=-1)
    distances = {total: at for at, total in enumerate(sorted({t for t in totals if t > 0}))}
    rest = sorted((totals[row], row) for row in range(len(values)) if totals[row] > 0)
    return found + [(row, behind + distances[total]) for total, row in rest]
