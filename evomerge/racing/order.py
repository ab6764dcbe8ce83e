"""The one order in which a campaign's items are scored: where good models disagree most comes first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from evomerge.trial import Outcome

_KEENNESS = 4  # races are run between good models: weight = rank⁴ among all on the task
_FLOOR = 0.1  # a merge may differ where no parent does


def disagreement(
    outcomes: Sequence[Outcome],
    metrics: Mapping[str, str],
    signs: Mapping[str, int],
    ids: Mapping[str, Sequence[str]],
) -> dict[str, tuple[float, ...]]:
    """Return how far models differ on each item: the mean absolute difference of two of them.

    A model counts by the fourth power of its rank on the task. Where a weak base and strong experts
    differ says little of a race between candidates, which all solve such items; where the best differ
    says much. On top, every item gets a tenth of its task's mean.

    Args:
        outcomes: Base, experts and baselines on the `search` items, in full; others are left out.
        metrics: Task → metric with a number for each item.
        signs: Task → 1 where a higher value is better, -1 where a lower one is.
        ids: Task → ids of its items.

    Returns:
        Task → one positive number an item, in the order of `ids`.
    """
    full = [each for each in outcomes if each.failure is None and each.pruned is None]
    found = {}
    for task, metric in metrics.items():
        rows = []
        for outcome in full:
            scores = outcome.scores[task]
            values = dict(zip(scores.items, scores.metrics[metric], strict=True))
            rows.append([values[item] for item in ids[task]])
        table = np.array(rows, dtype=np.float64).reshape(len(rows), len(ids[task]))
        found[task] = tuple(_spread(table[np.isfinite(table).all(axis=1)], signs[task]).tolist())
    return found


def block_order(
    disagreement: Mapping[str, Sequence[float]], weights: Mapping[str, float], blocks: int = 5
) -> tuple[dict[str, tuple[int, ...]], ...]:
    """Cut the items of all tasks into blocks.

    Every task's items stand in falling order of disagreement, the earlier of equals first. Tasks take
    turns in proportion to their weights until they run out.

    Args:
        disagreement: Task → one number an item.
        weights: Task → share in the objective.
        blocks: How many, of about equal size; fewer where there are fewer items than that.

    Returns:
        For each block, task → positions of its items, rising; a task without items in it is left out.
        Every task is in the first block.
    """
    first, turns = [], []
    for task, spread in disagreement.items():
        ranked = sorted(range(len(spread)), key=lambda position: -spread[position])
        first += [(task, position) for position in ranked[:1]]
        turns += [(rank / weights[task], task, position) for rank, position in enumerate(ranked)][
            1:
        ]
    turns.sort(key=lambda turn: turn[0])
    items = first + [(task, position) for _, task, position in turns]
    edges = [max(round(len(items) * block / blocks), len(first)) for block in range(1, blocks)]
    bounds = sorted({0, *edges, len(items)})
    return tuple(_by_task(items[start:stop], disagreement) for start, stop in pairwise(bounds))


def _spread(values: NDArray[np.float64], sign: int) -> NDArray[np.float64]:
    """Mean absolute difference of two rows of [models, items], floored; ones where nothing is known."""
    if len(values) == 0:
        return np.ones(values.shape[1])
    weights = rankdata(sign * values.mean(axis=1)) ** _KEENNESS
    weights /= weights.sum()
    gaps = np.abs(values[:, None] - values[None])
    spread = np.einsum("a,b,abi->i", weights, weights, gaps)
    mean = float(spread.mean()) if len(spread) else 0.0
    return spread + _FLOOR * mean if mean > 0 else np.ones(len(spread))


def _by_task(
    items: Sequence[tuple[str, int]], tasks: Mapping[str, object]
) -> dict[str, tuple[int, ...]]:
    found = {task: tuple(sorted(p for name, p in items if name == task)) for task in tasks}
    return {task: positions for task, positions in found.items() if positions}
