"""The leaderboard: parents, naive baselines, finalists and the winner, side by side.

Read from a finished or running study; `leaderboard.json` is its `to_json`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from evomerge.candidate import Recipe
from evomerge.candidate.trial import SPLITS, Cost, Outcome, Split
from evomerge.config.model_names import by_part
from evomerge.objective import Objectives, tuned_lambda
from evomerge.report.evidence import FINAL, Evidence, weigh
from evomerge.report.rows import KINDS, Kind, Row
from evomerge.report.scores import estimated_scores, split_scores
from evomerge.report.summary import Constraint, Summary, constraints_of, portable, summarise

if TYPE_CHECKING:
    from evomerge.store import Evaluation, Store, StoredTrial

SCHEMA = 3
"""3: `constraints`, which were `conditions`; goals hold no values."""
TUNED = " (tuned)"


@dataclass(frozen=True)
class Leaderboard:
    """Rows, and what may be concluded from them.

    Attributes:
        campaign: What was searched.
        rows: Base, experts, baselines, finalists (best first), winner.
        tests: Paired tests of the winner, and its generalisation gap.
        constraints: What the winner must not lose.
        aims: Split → the objectives by which its rows were scored.
    """

    campaign: Summary
    rows: tuple[Row, ...]
    tests: Evidence
    constraints: tuple[Constraint, ...] = ()
    aims: Mapping[Split, Objectives] = field(default_factory=dict, repr=False, compare=False)

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
            "rows": [row.to_json() for row in self.rows],
            "tests": self.tests.to_json(),
            "constraints": [asdict(one) for one in self.constraints],
        }


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
    summary, evaluations = summarise(store), store.evaluations()
    aims = {
        split: Objectives.of(store.campaign, store.facts, evaluations, split)
        for split in SPLITS
        if any(one.split == split for one in evaluations) or split == "search"
    }
    models = _collect(store, evaluations, aims["search"], wanted)
    rows = [_row(model, aims, Path(store.folder)) for model in models]
    if "select" in aims:
        kept = tuned_lambda(aims["select"], evaluations)
        rows = [replace(row, name=row.name + TUNED) if row.key == kept else row for row in rows]
    rows = _in_order(_told_apart(rows), aims)
    tests = weigh(rows, aims[FINAL]) if FINAL in aims else Evidence()
    return Leaderboard(summary, tuple(rows), tests, constraints_of(store.campaign, aims), aims)


@dataclass
class _Model:
    key: str
    name: str
    kind: Kind
    trial: int | None
    recipe: Recipe
    outcomes: dict[Split, Outcome] = field(default_factory=dict)
    estimates: tuple[float, ...] | None = None


def _collect(
    store: Store, evaluations: Sequence[Evaluation], aims: Objectives, wanted: int | None
) -> list[_Model]:
    """Join what is known of each model."""
    found: dict[str, _Model] = {}
    for one in evaluations:
        kind = cast(Kind, one.kind)
        model = found.setdefault(
            one.key, _Model(one.key, one.name, kind, one.number, one.candidate)
        )
        model.outcomes[one.split] = one.outcome
    trials = {trial.number: trial for trial in store.trials()}
    shown = [] if wanted is None else [wanted]
    if all(model.trial is None for model in found.values()):
        shown += _leading(list(trials.values()), aims)[: store.campaign.search.finalists]
    for number in shown:
        tried = trials[number].entry
        found.setdefault(
            tried.key, _Model(tried.key, tried.name, "finalist", number, tried.candidate)
        )
    for model in found.values():
        trial = None if model.trial is None else trials.get(model.trial)
        if trial is not None and trial.outcome is not None:
            model.outcomes.setdefault("search", trial.outcome)
            model.estimates = trial.values if trial.state == "pruned" else None
    return list(found.values())


def _leading(trials: Sequence[StoredTrial], aims: Objectives) -> list[int]:
    """Return the numbers of the trials, best so far first; behind them those that were pruned."""
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


def _row(model: _Model, aims: Mapping[Split, Objectives], folder: Path) -> Row:
    costs = [outcome.cost for outcome in model.outcomes.values()]
    total = {one.name: sum(getattr(cost, one.name) for cost in costs) for one in fields(Cost)}
    splits = {}
    for split in SPLITS:
        if split in model.outcomes:
            outcome, estimates = model.outcomes[split], model.estimates
            splits[split] = (
                split_scores(aims[split], outcome, model.recipe)
                if split != "search" or estimates is None
                else estimated_scores(aims[split], estimates, outcome, model.recipe)
            )
    recipe = model.recipe.renamed(by_part(lambda name: portable(name, folder)))
    return Row(model.name, model.kind, model.trial, recipe, splits, Cost(**total), key=model.key)


def _told_apart(rows: Sequence[Row]) -> list[Row]:
    """Say the kind of an expert, or a naive merge, that has the name of a row of another kind."""
    kinds: dict[str, set[Kind]] = {}
    for row in rows:
        kinds.setdefault(row.name.casefold(), set()).add(row.kind)
    return [
        replace(row, name=f"{row.name} ({row.kind})")
        if len(kinds[row.name.casefold()]) > 1 and row.kind in ("expert", "baseline")
        else row
        for row in rows
    ]


def _in_order(rows: Sequence[Row], aims: Mapping[Split, Objectives]) -> list[Row]:
    """Sort by kind; finalists best first, as the winner is chosen; the others as they were recorded.

    In Pareto mode merges say whether they are on the front of the split that chooses: `select`, or
    `search` as long as nothing was scored on `select`. One that misses a constraint is not.
    """
    split: Split = "select" if "select" in aims else "search"
    merges = [
        row
        for row in rows
        if row.kind in ("baseline", "finalist", "winner")
        and (scores := row.splits.get(split)) is not None
        and scores.outcome is not None
        and not scores.estimated
        and aims[split].quality(scores.outcome) > -math.inf
    ]
    values = [aims[split].values(_outcome(row, split), row.recipe) for row in merges]
    ranked = aims[split].order(values, [row.splits[split].violations for row in merges])
    place = {merges[at].key: index for index, (at, _) in enumerate(ranked)}
    front = {merges[at].key: front == 0 for at, front in ranked}
    if aims[split].campaign.mode == "pareto":
        rows = [
            replace(row, front=front[row.key] and not row.misses(split))
            if row.key in front
            else row
            for row in rows
        ]
    return sorted(
        rows,
        key=lambda row: (
            KINDS.index(row.kind),
            place.get(row.key, len(place)) if row.kind == "finalist" else 0,
        ),
    )


def _outcome(row: Row, split: Split) -> Outcome:
    outcome = row.splits[split].outcome
    assert outcome is not None  # rows made here have one
    return outcome
