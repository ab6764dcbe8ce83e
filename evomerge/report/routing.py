"""Who answers what in an ensemble whose members answer apart, and what other choices would have scored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from evomerge.candidate.trial import Estimate, Outcome, Split, TaskScores
from evomerge.objective import Objectives, metric_on
from evomerge.report.grid import Cell, Grid, Line, number, short_names
from evomerge.report.intervals import Floats

if TYPE_CHECKING:
    from evomerge.store import Evaluation

SAME = 1e-9
"""Values that differ by less are the same."""
Counts = tuple[int, ...]
"""One number a member."""


@dataclass(frozen=True)
class Oracles:
    """Weighted means, more is better, of the ensemble and of choices that only its items could have told.

    Attributes:
        ensemble: By the router.
        single: The best member answers everything.
        best: Its name.
        task: Of each task the member answers that is best on it.
        item: Of each item a member answers that is best on it.
    """

    ensemble: float
    single: float
    best: str
    task: float
    item: float


@dataclass(frozen=True)
class RoutingReport:
    """Who answers the items of one split.

    Attributes:
        members: Of the ensemble.
        items: Task → how many of its items each member answers.
        tokens: Task → how many tokens of its prompts each member reads; empty where they were not counted.
        confusion: Of the items on which members differ: the best member → how many each member answers; of
            equally good ones the one that answers counts, else the first.
        oracles: None where the scores of members do not tell.
        unknown: Members that were not scored on all items, and so count only on those that they answer.
    """

    members: tuple[str, ...]
    items: Mapping[str, Counts]
    tokens: Mapping[str, Counts] = field(default_factory=dict)
    confusion: Mapping[str, Counts] = field(default_factory=dict)
    oracles: Oracles | None = None
    unknown: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts and lists."""
        return asdict(self)

    def grids(self) -> tuple[Grid, ...]:
        """Return its tables: who answers what, and the router beside the best member of each item."""
        called = dict(zip(self.items, short_names(list(self.items)), strict=True))
        headers = ("", *self.members)
        answered = [
            Line(called[task], "", _shares(counts, self.tokens.get(task)))
            for task, counts in self.items.items()
        ]
        whole = _total(self.items.values()), _total(self.tokens.values())
        answered.append(Line("all", "total", _shares(whole[0], whole[1] or None)))
        title = "who answers, share of items" + (" / of tokens" if self.tokens else "")
        grids = [Grid(title, headers, tuple(answered), self._notes())]
        if self.confusion:
            lines = [
                Line(best, "", tuple(Cell(str(one) if one else "") for one in counts))
                for best, counts in self.confusion.items()
            ]
            title = "best member of an item (rows), member that answers it"
            grids.append(Grid(title, headers, tuple(lines), self._differing()))
        return tuple(grids)

    def _notes(self) -> tuple[str, ...]:
        found = []
        if self.oracles is not None:
            one = self.oracles
            found.append(
                f"ensemble {number(one.ensemble)}; best single member ({one.best}) {number(one.single)}, "
                f"best member of each task {number(one.task)}, of each item {number(one.item)}: chosen by "
                "these very items"
            )
        if self.unknown:
            names = ", ".join(self.unknown)
            found.append(f"scored on the items only that it answers: {names}")
        return tuple(found)

    def _differing(self) -> tuple[str, ...]:
        total = sum(map(sum, self.confusion.values()))
        right = sum(counts[self.members.index(best)] for best, counts in self.confusion.items())
        return (f"of {total} items on which members differ a best member answers {right}",)


def routings(
    evaluations: Sequence[Evaluation], aims: Mapping[Split, Objectives]
) -> dict[Split, RoutingReport]:
    """Explain the winner on every split on which its members answered apart; most winners have none."""
    return {
        one.split: routing(one, evaluations, aims[one.split])
        for one in evaluations
        if one.kind == "winner" and one.outcome.routes
    }


def routing(
    ensemble: Evaluation, evaluations: Sequence[Evaluation], aims: Objectives
) -> RoutingReport:
    """Explain one ensemble on one split.

    Args:
        ensemble: Scored, its members apart.
        evaluations: Of the campaign; the members that were scored on the split are known from them.
        aims: Of the split.
    """
    scored = {
        one.candidate.text(): one.outcome for one in evaluations if one.split == ensemble.split
    }
    members = {
        name: scored.get(one.text()) for name, one in ensemble.candidate.scored_members.items()
    }
    names, routes = list(members), ensemble.outcome.routes
    tables = {name: _table(one, aims) for name, one in members.items() if one is not None}
    known = {name: table for name, table in tables.items() if table is not None}
    own = _table(ensemble.outcome, aims)
    values = {} if own is None or not known else _values(names, known, routes, own)
    return RoutingReport(
        members=tuple(names),
        items={task: _counts(chosen, len(names)) for task, chosen in routes.items()},
        tokens=ensemble.outcome.read,
        confusion=_confusion(names, values, routes) if values else {},
        oracles=_oracles(ensemble.outcome, known, values, aims) if values else None,
        unknown=tuple(name for name in names if name not in known),
    )


_Table = Mapping[str, Floats]
"""Task → value of each of its items, more is better."""


def _table(outcome: Outcome, aims: Objectives) -> _Table | None:
    """Return a member's values; None where they are not whole, or their mean is not what is reported."""
    found = {}
    for goal in aims.campaign.objectives:
        metric, scores = metric_on(goal, aims.split), outcome.scores.get(goal.task)
        if scores is None or metric not in scores.metrics or metric not in scores.values:
            return None
        try:
            values = np.array(scores.metrics[metric], dtype=np.float64)
        except (TypeError, ValueError):
            return None
        if values.ndim != 1 or abs(values.mean() - scores.values[metric].value) > SAME:
            return None
        found[goal.task] = values if aims.better(goal.task, metric) else -values
    return found


def _values(
    names: Sequence[str], known: Mapping[str, _Table], routes: Mapping[str, Counts], own: _Table
) -> dict[str, Floats]:
    """Return task → values `[members, items]`, -inf where they are not known; `own`: the ensemble's."""
    found = {}
    for task, answered in own.items():
        values = np.full((len(names), len(answered)), -np.inf)
        values[list(routes[task]), np.arange(len(answered))] = answered
        for name, table in known.items():
            values[names.index(name)] = table[task]
        found[task] = values
    return found


def _oracles(
    ensemble: Outcome, known: Mapping[str, _Table], values: Mapping[str, Floats], aims: Objectives
) -> Oracles:
    single = {name: _quality(table, aims) for name, table in known.items()}
    best = max(single, key=lambda name: single[name])
    of_task = {task: max((one[task] for one in known.values()), key=np.mean) for task in values}
    of_item = {task: one.max(axis=0) for task, one in values.items()}
    return Oracles(
        ensemble=aims.quality(ensemble),
        single=single[best],
        best=best,
        task=_quality(of_task, aims),
        item=_quality(of_item, aims),
    )


def _quality(table: _Table, aims: Objectives) -> float:
    """Return the weighted mean of values, as the campaign takes it."""
    scores = {}
    for goal in aims.campaign.objectives:
        metric = metric_on(goal, aims.split)
        sign = 1.0 if aims.better(goal.task, metric) else -1.0
        mean = sign * float(table[goal.task].mean())
        scores[goal.task] = TaskScores((), {}, {metric: Estimate(mean)})
    return aims.quality(Outcome(scores))


def _confusion(
    names: Sequence[str], values: Mapping[str, Floats], routes: Mapping[str, Counts]
) -> dict[str, Counts]:
    found = np.zeros((len(names), len(names)), dtype=np.int64)
    for task, own in values.items():
        is_best = own >= own.max(axis=0) - SAME
        differ = ~(is_best | np.isinf(own)).all(axis=0)
        for item in np.flatnonzero(differ):
            chosen = routes[task][item]
            best = chosen if is_best[chosen, item] else int(is_best[:, item].argmax())
            found[best, chosen] += 1
    return {name: tuple(map(int, row)) for name, row in zip(names, found, strict=True)}


def _counts(chosen: Sequence[int], members: int) -> Counts:
    return tuple(map(int, np.bincount(np.array(chosen, dtype=np.int64), minlength=members)))


def _total(counts: Iterable[Counts]) -> Counts:
    return tuple(map(sum, zip(*counts, strict=True)))


def _shares(items: Counts, tokens: Counts | None) -> tuple[Cell, ...]:
    shown = [_share(one, sum(items)) for one in items]
    if tokens is not None:
        beside = [_share(one, sum(tokens)) for one in tokens]
        shown = [
            f"{one} / {other}" if one else "" for one, other in zip(shown, beside, strict=True)
        ]
    return tuple(map(Cell, shown))


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2f}" if part else ""
