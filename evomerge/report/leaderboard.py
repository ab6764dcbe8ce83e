"""The leaderboard: parents, naive baselines, finalists and the winner, side by side.

Read from a finished or running study; `leaderboard.json` is its `to_json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from evomerge.errors import ResultsError
from evomerge.recipe import Recipe
from evomerge.report.front import mark_front
from evomerge.report.interchange import row_from_json, row_to_json
from evomerge.report.paths import portable
from evomerge.report.rows import KINDS, Goal, Kind, Row, higher_is_better, split_scores
from evomerge.report.selection import in_lambda_grid
from evomerge.report.significance import Evidence, best, weigh
from evomerge.report.summary import Summary, summarise
from evomerge.trial import SPLITS, Cost, Outcome, Split

if TYPE_CHECKING:
    from evomerge.store import Store

SCHEMA = 1
TUNED = " (tuned)"


@dataclass(frozen=True)
class Leaderboard:
    """Rows, and what may be concluded from them.

    Attributes:
        campaign: What was searched.
        rows: Base, experts, baselines, finalists (best first), winner.
        tests: Paired tests of the winner, and its shrinkage.
    """

    campaign: Summary
    rows: tuple[Row, ...]
    tests: Evidence

    def row(self, name: str) -> Row:
        """Return the row of that name.

        Raises:
            KeyError: There is none.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    @property
    def winners(self) -> tuple[Row, ...]:
        """The winner; several on a Pareto front; none while the search runs."""
        return tuple(row for row in self.rows if row.kind == "winner")

    def latest_split(self) -> Split:
        """Return the last of search, select and holdout on which any row was scored."""
        scored = {split for row in self.rows for split in row.splits}
        return next((split for split in reversed(SPLITS) if split in scored), "search")

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts and lists; per-item scores stay in `study.db`."""
        return {
            "schema": SCHEMA,
            "campaign": self.campaign.to_json(),
            "rows": [row_to_json(row) for row in self.rows],
            "tests": self.tests.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Leaderboard:
        """Read back what `to_json` wrote.

        Raises:
            ResultsError: It was written by a newer evomerge, or is no leaderboard.
        """
        if data.get("schema") != SCHEMA:
            raise ResultsError(
                f"leaderboard of schema {data.get('schema')!r}, expected {SCHEMA}; "
                "write it anew with: evomerge report DIR --format json"
            )
        return cls(
            campaign=Summary.from_json(data["campaign"]),
            rows=tuple(row_from_json(row) for row in data["rows"]),
            tests=Evidence.from_json(data["tests"]),
        )


def leaderboard(store: Store) -> Leaderboard:
    """Build the leaderboard of a finished or running study.

    While there are no finalists yet, the best trials so far stand in their place, on the search items.
    """
    summary = summarise(store)
    found = _collect(store, summary).values()
    rows = [_row(one, summary.goals, Path(store.folder)) for one in found]
    rows = _mark_tuned(rows, summary.goals)
    if summary.mode == "pareto":
        rows = mark_front(rows, summary.goals)
    rows = _in_order(rows, summary.goals)
    return Leaderboard(summary, tuple(rows), weigh(rows, summary.goals))


@dataclass
class _Found:
    name: str
    kind: Kind
    trial: int | None
    recipe: Recipe
    outcomes: dict[Split, Outcome]


def _collect(store: Store, summary: Summary) -> dict[str | int, _Found]:
    """Join what is known of each model: a trial by its number, everything else by its name."""
    found: dict[str | int, _Found] = {}
    for one in store.evaluations():
        key = one.name if one.number is None else one.number
        kind = cast(Kind, one.kind)
        entry = found.setdefault(key, _Found(one.name, kind, one.number, one.recipe, {}))
        entry.kind = max(entry.kind, kind, key=KINDS.index)
        entry.outcomes[one.split] = one.outcome
    trials = {trial.number: trial for trial in store.trials() if trial.outcome is not None}
    if not any(isinstance(key, int) for key in found):
        for number in _leading(store, summary):
            recipe = trials[number].recipe
            found[number] = _Found(f"trial {number}", "finalist", number, recipe, {})
    for key, entry in found.items():
        outcome = trials[key].outcome if isinstance(key, int) and key in trials else None
        if outcome is not None:
            entry.outcomes.setdefault("search", outcome)
    return found


def _leading(store: Store, summary: Summary) -> list[int]:
    """Return the numbers of the trials with the best values so far, as many as finalists are asked."""
    sign = 1.0 if higher_is_better(summary.goals, searched=True) else -1.0
    scored = []
    for trial in store.trials():
        if trial.state == "complete" and trial.outcome is not None:
            scores = split_scores(trial.outcome, summary.goals)
            value = scores.searched or scores.objective
            if value is not None:
                scored.append((-sign * value.value, trial.number))
    return [number for _, number in sorted(scored)[: store.campaign.search.finalists]]


def _row(found: _Found, goals: Sequence[Goal], folder: Path) -> Row:
    costs = [outcome.cost for outcome in found.outcomes.values()]
    cost = Cost(
        merge_seconds=sum(cost.merge_seconds for cost in costs),
        score_seconds=sum(cost.score_seconds for cost in costs),
        items=sum(cost.items for cost in costs),
        generated_tokens=sum(cost.generated_tokens for cost in costs),
    )
    splits = {
        split: split_scores(found.outcomes[split], goals)
        for split in SPLITS
        if split in found.outcomes
    }
    recipe = found.recipe.renamed(lambda name: portable(name, folder))
    return Row(found.name, found.kind, found.trial, recipe, splits, cost)


def _mark_tuned(rows: Sequence[Row], goals: Sequence[Goal]) -> list[Row]:
    """Name the λ that the `select` items picked."""
    grid = [row for row in rows if row.trial is None and in_lambda_grid(row.name)]
    chosen = best(grid, goals, "select")
    return [row.renamed(row.name + TUNED) if row is chosen else row for row in rows]


def _in_order(rows: Sequence[Row], goals: Sequence[Goal]) -> list[Row]:
    """Sort by kind; finalists best first, the others as they were recorded."""
    sign = 1.0 if higher_is_better(goals) else -1.0

    def place(row: Row) -> tuple[int, float]:
        value = row.objective("select") if row.kind == "finalist" else None
        return KINDS.index(row.kind), 0.0 if value is None else -sign * value

    return sorted(rows, key=place)
