"""What a good model is expected to have on each item, from models that were scored in full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import scipy  # its parts are imported where they are first used
from numpy.typing import NDArray

from evomerge.candidate.trial import Outcome

_KEENNESS = 4  # candidates resemble the good models: weight = rank⁴ among all on the task


def expectation(
    outcomes: Sequence[Outcome],
    metrics: Mapping[str, str],
    signs: Mapping[str, int],
    ids: Mapping[str, Sequence[str]],
) -> tuple[dict[str, tuple[float, ...]], dict[str, float]]:
    """Return the weighted mean of known models on each item, and their spread about it.

    A model counts by the fourth power of its rank on the task.

    Args:
        outcomes: Base, experts and baselines on the `search` items, in full; others are left out.
        metrics: Task → metric with a number for each item.
        signs: Task → 1 where a higher value is better, -1 where a lower one is.
        ids: Task → ids of its items.

    Returns:
        Task → one number an item, in the order of `ids`; and task → standard deviation. Zeros and 1
        where no model is known.
    """
    full = [each for each in outcomes if each.failure is None and each.pruned is None]
    means: dict[str, tuple[float, ...]] = {}
    spread: dict[str, float] = {}
    for task, metric in metrics.items():
        rows = []
        for outcome in full:
            scores = outcome.scores[task]
            values = dict(zip(scores.items, scores.metrics[metric], strict=True))
            rows.append([values[item] for item in ids[task]])
        table = np.array(rows, dtype=np.float64).reshape(len(rows), len(ids[task]))
        mean, deviation = _moments(table[np.isfinite(table).all(axis=1)], signs[task])
        means[task], spread[task] = tuple(mean.tolist()), deviation
    return means, spread


def _moments(table: NDArray[np.float64], sign: int) -> tuple[NDArray[np.float64], float]:
    """Weighted mean of each item over [models, items], and the spread over all items."""
    if not len(table):
        return np.zeros(table.shape[1]), 1.0
    weights = scipy.stats.rankdata(sign * table.mean(axis=1)) ** _KEENNESS
    mean = np.average(table, axis=0, weights=weights)
    variance = np.average((table - mean) ** 2, axis=0, weights=weights)
    return mean, float(np.sqrt(variance.mean()))
