"""The leaderboard: parents, naive baselines, finalists and the winner, side by side.

Read from a finished or running study; `leaderboard.json` is its `to_json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from evomerge.candidate import Recipe
from evomerge.candidate.trial import SPLITS, Cost, Outcome, Split
from evomerge.config.model_names import by_part
from evomerge.errors import ResultsError
from evomerge.objective import Objectives, total_violation, tuned_lambda
from evomerge.report.constraints import Condition, conditions_of
from evomerge.report.estimates import estimated_scores
from evomerge.report.front import mark_front
from evomerge.report.interchange import row_from_json, row_to_json
from evomerge.report.paths import portable
from evomerge.report.rows import (
    KINDS,
    Goal,
    Kind,
    Row,
    SplitScores,
    higher_is_better,
    split_scores,
)
from evomerge.report.significance import FINAL, Evidence, weigh
from evomerge.report.summary import Summary, measured_goals, summarise

if TYPE_CHECKING:
    from evomerge.store import Evaluation, Store, StoredTrial

SCHEMA = 2
"""2: rows have keys, and so have those that tests name; the readings of holdout are counted."""
TUNED = " (tuned)"


@dataclass(frozen=True)
class Leaderboard:
    """Rows, and what may be concluded from them.

    Attributes:
        campaign: What was searched.
        rows: Base, experts, baselines, finalists (best first), winner.
        tests: Paired tests of the winner, and its generalisation_gap.
        conditions: What the winner must not lose.
    """

    campaign: Summary
    rows: tuple[Row, ...]
    tests: Evidence
    conditions: tuple[Condition, ...] = ()

    def row(self, name: str) -> Row:
        """Return the row of that key, else of that name.

        Raises:
            KeyError: There is none.
        """
        for row in (*(r for r in self.rows if r.key == name), *self.rows):
            if name in (row.key, row.name):
                return row
        raise KeyError(name)

    @property
    def winners(self) -> tuple[Row, ...]:
        """The winner; none before one is chosen."""
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
            "conditions": [condition.to_json() for condition in self.conditions],
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
                "write it again with: evomerge report DIR --format json"
            )
        return cls(
            campaign=Summary.from_json(data["campaign"]),
            rows=tuple(row_from_json(row) for row in data["rows"]),
            tests=Evidence.from_json(data["tests"]),
            conditions=tuple(Condition(**one) for one in data.get("conditions", ())),
        )


def leaderboard(store: Store) -> Leaderboard:
    """Build the leaderboard of a finished or running study.

    While there are no finalists yet, the best trials so far stand in their place, on the search items.
    """
    return _leaderboard(store, None)


def with_trial(store: Store, number: int) -> tuple[Leaderboard, Row]:
    """Build the leaderboard with a row for one trial, whether or not it was a finalist; return both.

    Raises:
        KeyError: There is no such trial.
    """
    board = _leaderboard(store, number)
    return board, next(row for row in board.rows if row.trial == number)


def _leaderboard(store: Store, wanted: int | None) -> Leaderboard:
    summary = summarise(store)
    evaluations = store.evaluations()
    aims_by_split = {
        split: Objectives.of(store.campaign, store.facts, evaluations, split)
        for split in SPLITS
        if any(one.split == split for one in evaluations) or split == "search"
    }
    goals = {
        split: measured_goals(summary.goals, aims.references)
        for split, aims in aims_by_split.items()
    }
    found = _collect(store, evaluations, aims_by_split["search"], wanted)
    rows = [_row(one, goals, aims_by_split, Path(store.folder)) for one in found]
    if "select" in aims_by_split:
        kept = tuned_lambda(aims_by_split["select"], evaluations)
        rows = [row.renamed(row.name + TUNED) if row.key == kept else row for row in rows]
    rows = _told_apart(rows)
    if summary.mode == "pareto":
        rows = mark_front(rows, summary.goals)
    rows = _in_order(rows, summary.goals)
    tests = weigh(rows, goals.get(FINAL, summary.goals))
    return Leaderboard(summary, tuple(rows), tests, conditions_of(store.campaign, aims_by_split))


@dataclass
class _Found:
    key: str
    name: str
    kind: Kind
    trial: int | None
    recipe: Recipe
    outcomes: dict[Split, Outcome]
    estimates: tuple[float, ...] | None = None


def _collect(
    store: Store, evaluations: Sequence[Evaluation], aims: Objectives, wanted: int | None
) -> list[_Found]:
    """Join what is known of each model."""
    found: dict[str, _Found] = {}
    for one in evaluations:
        kind = cast(Kind, one.kind)
        entry = found.setdefault(
            one.key, _Found(one.key, one.name, kind, one.number, one.candidate, {})
        )
        entry.outcomes[one.split] = one.outcome
    trials = {trial.number: trial for trial in store.trials()}
    shown = [] if wanted is None else [wanted]
    if all(entry.trial is None for entry in found.values()):
        count = store.campaign.search.finalists
        shown += _leading(list(trials.values()), aims)[:count]
    for number in shown:
        tried = trials[number].entry
        found.setdefault(
            tried.key, _Found(tried.key, tried.name, "finalist", number, tried.candidate, {})
        )
    for entry in found.values():
        trial = None if entry.trial is None else trials.get(entry.trial)
        if trial is None or trial.outcome is None:
            continue
        entry.outcomes.setdefault("search", trial.outcome)
        if trial.state == "pruned":
            entry.estimates = trial.values
    return list(found.values())


def _leading(trials: Sequence[StoredTrial], aims: Objectives) -> list[int]:
    """Return the numbers of the trials, best so far first; behind them those that were given up."""
    leading: list[int] = []
    for state in ("complete", "pruned"):
        scored = [
            (trial.number, trial.values, aims.violations(trial.outcome))
            for trial in trials
            if trial.state == state and trial.values is not None and trial.outcome is not None
        ]
        ordered = aims.order([values for _, values, _ in scored], [v for *_, v in scored])
        leading += [scored[row][0] for row, _ in ordered]
    return leading


def _row(
    found: _Found,
    goals: Mapping[Split, Sequence[Goal]],
    aims_by_split: Mapping[Split, Objectives],
    folder: Path,
) -> Row:
    costs = [outcome.cost for outcome in found.outcomes.values()]
    cost = Cost(
        merge_seconds=sum(cost.merge_seconds for cost in costs),
        score_seconds=sum(cost.score_seconds for cost in costs),
        items=sum(cost.items for cost in costs),
        generated_tokens=sum(cost.generated_tokens for cost in costs),
    )
    splits = {
        split: _split_scores(found, split, goals[split], aims_by_split[split])
        for split in SPLITS
        if split in found.outcomes
    }
    recipe = found.recipe.renamed(by_part(lambda name: portable(name, folder)))
    return Row(found.name, found.kind, found.trial, recipe, splits, cost, key=found.key)


def _split_scores(
    found: _Found, split: Split, goals: Sequence[Goal], aims: Objectives
) -> SplitScores:
    outcome = found.outcomes[split]
    if split == "search" and found.estimates is not None:
        return estimated_scores(aims, goals, found.estimates, outcome)
    scores = split_scores(outcome, goals)
    if outcome.failure is not None:
        return scores
    costs = aims.costs(outcome, found.recipe)
    net = None
    if costs and aims.campaign.mode == "mean" and scores.objective is not None:
        sign = 1.0 if higher_is_better(goals) else -1.0
        net = sign * scores.objective.value - aims.charge(costs)
    return replace(
        scores,
        costs={one.cost: c for one, c in zip(aims.campaign.costs, costs, strict=True)},
        net=net,
        violations=aims.violations(outcome),
    )


def _told_apart(rows: Sequence[Row]) -> list[Row]:
    """Say the kind of an expert, or a naive merge, that has the name of a row of another kind."""
    kinds: dict[str, set[Kind]] = {}
    for row in rows:
        kinds.setdefault(row.name.casefold(), set()).add(row.kind)
    return [
        row.renamed(f"{row.name} ({row.kind})")
        if len(kinds[row.name.casefold()]) > 1 and row.kind in ("expert", "baseline")
        else row
        for row in rows
    ]


def _in_order(rows: Sequence[Row], goals: Sequence[Goal]) -> list[Row]:
    """Sort by kind; finalists best first, as the winner is chosen; the others as they were recorded."""
    sign = 1.0 if higher_is_better(goals) else -1.0

    def place(row: Row) -> tuple[int, float, float]:
        scores = row.splits.get("select") if row.kind == "finalist" else None
        if scores is None or scores.objective is None:
            return KINDS.index(row.kind), 0.0, 0.0
        value = sign * scores.objective.value if scores.net is None else scores.net
        return KINDS.index(row.kind), total_violation(scores.violations), -value

    return sorted(rows, key=place)
