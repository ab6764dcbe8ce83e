"""The best points of an earlier campaign, as the first ones of a new campaign."""

from __future__ import annotations

from pathlib import Path

from evomerge.config.faults import at_field, located
from evomerge.errors import CampaignError
from evomerge.objective import Objectives, Ranked, ranking
from evomerge.preflight.check import Preflight
from evomerge.space import in_one_space
from evomerge.store import Store

POINTS = 4
"""How many of its best trials an earlier campaign gives; its winner is the first of them."""

_FIELD = "search.warm_start"


def first_points(ready: Preflight, file: Path | None = None) -> list[dict[str, float]]:
    """Return the points that a search begins with: those that `warm_start` gives it, then its space's.

    Args:
        ready: The campaign.
        file: Where it was read from; errors then name this file and the line of `warm_start`.

    Raises:
        ResultsError: The folder holds no campaign.
        CampaignError: It is of another base, or nothing of it lies in the new space.
    """
    folder = ready.campaign.search.warm_start
    first = [dict(point) for point in ready.space.first()]
    if folder is None:
        return first
    with located(file):
        return [*_points(ready, Path(folder)), *first]


def _points(ready: Preflight, folder: Path) -> list[dict[str, float]]:
    with at_field(_FIELD):
        opened = Store.open(folder, write=False)
    with opened as store:
        _check_base(store, ready)
        earlier = store.campaign
        aims = Objectives.of(store.campaign, store.facts, store.evaluations(), "search")
        complete = [trial for trial in store.trials() if trial.state == "complete"]
        scored = [
            Ranked(trial.number, trial.values, aims.violations(trial.outcome, aims.weighed(trial)))
            for trial in complete
            if trial.values is not None and trial.outcome is not None
        ]
        ranked = [one.number for one in ranking(aims, scored)]
        chosen = [] if store.winner is None else [store.winner.number]
        params = {trial.number: trial.params for trial in complete}
    numbers = dict.fromkeys(number for number in (*chosen, *ranked) if number in params)
    points: list[dict[str, float]] = []
    for number in numbers:
        point = ready.space.taken_over(*in_one_space(earlier, params[number]))
        if point is not None and point not in points:
            points.append(point)
        if len(points) == POINTS:
            break
    if not points:
        raise CampaignError(
            f"no trial of {folder} lies in this space: it has no scored trial, or other methods",
            field=_FIELD,
        )
    return points


def _check_base(store: Store, ready: Preflight) -> None:
    ours, theirs = ready.family.hashes["base"], store.facts["models"]["base"]
    if ours != theirs:
        raise CampaignError(
            f"{store.folder} searched merges of another base; a point of it means another model here",
            field=_FIELD,
        )
