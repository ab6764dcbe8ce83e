"""Task arithmetic with one λ for all experts: the naive merges of which only the tuned one is compared."""

from __future__ import annotations

import math
from collections.abc import Iterable

from evomerge.candidate.trial import row_key
from evomerge.objective.objectives import Objectives
from evomerge.objective.references import Recorded

_PREFIX = row_key("baseline", "task arithmetic λ=")


def in_lambda_grid(key: str) -> bool:
    """Tell whether a row is one of the grid, by its key."""
    return key.startswith(_PREFIX)


def tuned_lambda(aims: Objectives, evaluations: Iterable[Recorded]) -> str | None:
    """Return the key of the grid's best member on the split of `aims`; of equals that of the smallest λ.

    Args:
        aims: Of the `select` items, which choose.
        evaluations: What was recorded, on any split; in which order depends on the workers.
    """
    scored = [
        (aims.quality(one.outcome), one.key)
        for one in evaluations
        if one.split == aims.split and in_lambda_grid(one.key)
    ]
    scored.sort(key=lambda pair: float(pair[1].removeprefix(_PREFIX)))
    quality, key = max(scored, key=lambda pair: pair[0], default=(-math.inf, None))
    return key if quality > -math.inf else None
