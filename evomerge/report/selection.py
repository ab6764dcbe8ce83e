"""What the select items decide: the winner among finalists, and which λ is the tuned one.

Whatever is scored on `holdout` is settled here, before anything was read there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol, TypeVar

from evomerge.report.rows import higher_is_better, split_scores
from evomerge.report.summary import goals_of
from evomerge.trial import Outcome

if TYPE_CHECKING:
    from evomerge.store import Store


class Named(Protocol):
    """What has a name, such as a baseline of the search space."""

    @property
    def name(self) -> str:
        """What reports call it."""


Row = TypeVar("Row", bound=Named)

_LAMBDA_GRID = re.compile(r"task arithmetic λ=")


def selection_value(store: Store, outcome: Outcome) -> float:
    """Return what finalists are ranked by on `select`: the weighted mean of the reported metrics.

    Returns:
        A number of which more is better, whatever the metrics' direction; -inf where one of them is
        missing or not finite.
    """
    goals = goals_of(store.campaign, store.facts)
    objective = split_scores(outcome, goals).objective
    if objective is None:
        return -math.inf
    return objective.value if higher_is_better(goals) else -objective.value


def tuned(store: Store, names: Iterable[str]) -> str | None:
    """Return the name of the λ grid's best member on `select` among `names`, the first of equals."""
    scored = []
    for name in names:
        outcome = store.evaluation(name, "select") if in_lambda_grid(name) else None
        if outcome is not None and outcome.failure is None:
            scored.append((selection_value(store, outcome), name))
    return max(scored, key=lambda pair: pair[0])[1] if scored else None


def compared_baselines(store: Store, baselines: Iterable[Row]) -> list[Row]:
    """Return the parents and baselines to be read on `holdout`: of the λ grid the tuned one only."""
    known = list(baselines)
    kept = tuned(store, [baseline.name for baseline in known])
    return [one for one in known if one.name == kept or not in_lambda_grid(one.name)]


def in_lambda_grid(name: str) -> bool:
    """Tell whether a baseline is task arithmetic with one λ for all experts."""
    return _LAMBDA_GRID.match(name) is not None
