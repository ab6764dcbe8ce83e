"""What the select items decide: the winner among finalists, and which λ is the tuned one.

Whatever is scored on `holdout` is settled here, before anything was read there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol, TypeVar

from evomerge.goals import Judge
from evomerge.trial import Candidate

if TYPE_CHECKING:
    from evomerge.store import Store


class Named(Protocol):
    """What has a name, such as a baseline of the search space."""

    @property
    def name(self) -> str:
        """What reports call it."""


Row = TypeVar("Row", bound=Named)

_LAMBDA_GRID = re.compile(r"task arithmetic λ=")


def choose_winner(store: Store, candidates: Iterable[Candidate]) -> Candidate | None:
    """Return the finalist that the select items pick.

    One that meets every condition, and of those the one with the best mean of the reported metrics (less
    the costs that come off it; of a Pareto front the member with the best mean), the earlier of equals;
    where none meets them, the one that misses them least.

    Args:
        store: Holds the finalists' outcomes on `select`.
        candidates: The finalists, in the order in which equals shall stand.

    Returns:
        None where no finalist has scores there.
    """
    judge = Judge.of(store.campaign, store.facts, store.evaluations(), "select")
    scored = [
        (candidate, outcome)
        for candidate in candidates
        if (outcome := store.evaluation(candidate.name, "select")) is not None
        and judge.quality(outcome) > -math.inf
    ]
    ordered = judge.order(
        [judge.values(outcome, candidate.recipe) for candidate, outcome in scored],
        [judge.violations(outcome) for _, outcome in scored],
    )
    return scored[ordered[0][0]][0] if ordered else None


def tuned(store: Store, names: Iterable[str]) -> str | None:
    """Return the name of the λ grid's best member on `select` among `names`, the first of equals."""
    judge = Judge.of(store.campaign, store.facts, store.evaluations(), "select")
    grid = [(name, store.evaluation(name, "select")) for name in names if in_lambda_grid(name)]
    scored = [(judge.quality(outcome), name) for name, outcome in grid if outcome is not None]
    return max(scored, key=lambda pair: pair[0])[1] if scored else None


def compared_baselines(store: Store, baselines: Iterable[Row]) -> list[Row]:
    """Return the parents and baselines to be read on `holdout`: of the λ grid the tuned one only."""
    known = list(baselines)
    kept = tuned(store, [baseline.name for baseline in known])
    return [one for one in known if one.name == kept or not in_lambda_grid(one.name)]


def in_lambda_grid(name: str) -> bool:
    """Tell whether a baseline is task arithmetic with one λ for all experts."""
    return _LAMBDA_GRID.match(name) is not None
