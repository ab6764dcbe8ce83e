"""The leaderboard: parents, naive baselines, finalists and the winner, side by side.

Read from a finished or running study; `leaderboard.json` is its `to_json`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from evomerge.candidate.cost import Cost
from evomerge.candidate.timing import Timing
from evomerge.candidate.trial import SPLITS, Outcome, Split, row_key
from evomerge.config import ITEMSIZES
from evomerge.config.model_names import by_part
from evomerge.objective import Objectives, tuned_lambda
from evomerge.report.evidence import FINAL, Evidence, weigh
from evomerge.report.failures import FailureGroup, failures_of
from evomerge.report.routing import RoutingReport, routings
from evomerge.report.rows import KINDS, Kind, Row
from evomerge.report.scores import estimated_scores, split_scores
from evomerge.report.serving import serving_of
from evomerge.report.summary import Constraint, Summary, constraints_of, portable, summarise

if TYPE_CHECKING:
    from evomerge.store import Evaluation, Store, StoredTrial

SCHEMA = 4
"""4: `serving` of each row; `constraints` also on costs.
3: `constraints`, which were `conditions`; `failures`; goals hold no values."""
TUNED = " (tuned)"


@dataclass(frozen=True)
class Leaderboard:
    """Rows, and what may be concluded from them.

    Attributes:
        campaign: What was searched.
        rows: Base, experts, baselines, finalists (best first), winner.
        tests: Paired tests of the winner, and its generalisation gap.
        constraints: What the winner must not lose.
        failures: Why candidates failed, the most frequent reason first.
        routing: Split → who of the winner answers what; none where one model answers all.
        aims: Split → the objectives by which its rows were scored.
    """

    campaign: Summary
    rows: tuple[Row, ...]
    tests: Evidence
    constraints: tuple[Constraint, ...] = ()
    failures: tuple[FailureGroup, ...] = ()
    routing: Mapping[Split, RoutingReport] = field(default_factory=dict)
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
        found = {
            "schema": SCHEMA,
            "campaign": self.campaign.to_json(),
            "rows": [row.to_json() for row in self.rows],
            "tests": self.tests.to_json(),
            "constraints": [one.to_json() for one in self.constraints],
            "failures": [group.to_json() for group in self.failures],
        }
        routing = {split: one.to_json() for split, one in self.routing.items()}
        return found | ({"routing": routing} if routing else {})


def leaderboard(
    store: Store, trial: int | None = None, trials: Sequence[StoredTrial] | None = None
) -> Leaderboard:
    """Build the leaderboard of a finished or running study.

    While there are no finalists yet, the best trials so far take their place, on the search items.

    Args:
        store: Of the campaign.
        trial: One to show whether or not it was a finalist.
        trials: The store's, where they were read before.

    Raises:
        KeyError: No such trial.
    """
    trials = store.trials() if trials is None else trials
    evaluations = store.evaluations()
    aims = {
        split: Objectives.of(store.campaign, store.facts, evaluations, split)
        for split in SPLITS
        if any(one.split == split for one in evaluations) or split == "search"
    }
    rows = _collect(store, trials, evaluations, aims, trial)
    if "select" in aims:
        kept = tuned_lambda(aims["select"], evaluations)
        rows = [replace(row, name=row.name + TUNED) if row.key == kept else row for row in rows]
    rows = _in_order(_told_apart(rows), aims)
    tests = weigh(rows, aims[FINAL]) if FINAL in aims else Evidence()
    constraints = constraints_of(store.campaign, aims)
    failures = failures_of(trials, evaluations, store.gradient_steps())
    return Leaderboard(
        summarise(store, trials),
        tuple(rows),
        tests,
        constraints,
        failures,
        routings(evaluations, aims),
        aims,
    )


def _collect(
    store: Store,
    trials: Sequence[StoredTrial],
    evaluations: Sequence[Evaluation],
    aims: Mapping[Split, Objectives],
    wanted: int | None,
) -> list[Row]:
    """Join what is known of each model."""
    rows: dict[str, Row] = {}
    outcomes: dict[str, dict[Split, Outcome]] = {}
    for one in evaluations:
        kind = cast(Kind, one.kind)
        rows.setdefault(one.key, Row(one.name, kind, one.number, one.candidate, {}, key=one.key))
        outcomes.setdefault(one.key, {})[one.split] = one.outcome
    tried = {trial.number: trial for trial in trials}
    shown = [] if wanted is None else [wanted]
    if all(row.trial is None for row in rows.values()):
        leading = _leading(trials, aims["search"])
        shown += leading[: store.campaign.search.finalists]
    for number in shown:
        entry = tried[number].entry
        row = Row(entry.name, "finalist", number, entry.candidate, {}, key=entry.key)
        rows.setdefault(entry.key, row)
    found = []
    of_base = _timing(outcomes.get(row_key("base", "base"), {}))
    for key, row in rows.items():
        trial = None if row.trial is None else tried.get(row.trial)
        found.append(_scored(row, outcomes.get(key, {}), trial, aims, store.folder, of_base))
    return found


def _scored(
    row: Row,
    outcomes: Mapping[Split, Outcome],
    trial: StoredTrial | None,
    aims: Mapping[Split, Objectives],
    folder: str | Path,
    of_base: Timing | None,
) -> Row:
    """Fill a row in; its recipe's models are named as seen from the results folder."""
    if trial is not None and trial.outcome is not None:
        outcomes = {"search": trial.outcome, **outcomes}
    splits = {
        split: split_scores(aims[split], outcomes[split], row.recipe)
        for split in SPLITS
        if split in outcomes
    }
    if trial is not None and trial.state == "pruned" and trial.values is not None:
        splits["search"] = estimated_scores(
            aims["search"], trial.values, outcomes["search"], row.recipe
        )
    total = sum((outcome.cost for outcome in outcomes.values()), Cost())
    recipe = row.recipe.renamed(by_part(lambda name: portable(name, folder)))
    campaign, size = aims["search"].campaign, aims["search"].size
    itemsize = ITEMSIZES[campaign.models.dtype]
    needed = serving_of(row.recipe, size, itemsize, _timing(outcomes), of_base)
    return replace(row, recipe=recipe, splits=splits, cost=total, serving=needed)


def _timing(outcomes: Mapping[Split, Outcome]) -> Timing | None:
    """Return how fast a model was when it was timed last."""
    found = [outcomes[split].timing for split in reversed(SPLITS) if split in outcomes]
    return next((one for one in found if one is not None), None)


def _leading(trials: Sequence[StoredTrial], aims: Objectives) -> list[int]:
    """Return the numbers of the trials, best so far first; behind them those that were pruned."""
    leading: list[int] = []
    for state in ("complete", "pruned"):
        scored = [
            (trial.number, trial.values, aims.violations(trial.outcome, aims.weighed(trial)))
            for trial in trials
            if trial.state == state and trial.values is not None and trial.outcome is not None
        ]
        ordered = aims.order([values for _, values, _ in scored], [v for *_, v in scored])
        leading += [scored[row][0] for row, _ in ordered]
    return leading


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
    """Sort by kind; finalists as the winner is chosen, experts as in the file, naive merges by name.

    In the modes of a front merges say whether they are on the front of the split that chooses: `select`, or
    `search` as long as nothing was scored on `select`. One that misses a constraint is not.
    """
    split: Split = "select" if "select" in aims else "search"
    merges = [
        (row, outcome)
        for row in rows
        if row.kind in ("baseline", "finalist", "winner")
        and (outcome := row.outcome(split)) is not None
        and not row.splits[split].estimated
        and aims[split].quality(outcome) > -math.inf
    ]
    values = [aims[split].values(outcome, row.recipe) for row, outcome in merges]
    ranked = aims[split].order(values, [row.splits[split].violations for row, _ in merges])
    place = {merges[at][0].key: index for index, (at, _) in enumerate(ranked)}
    if aims[split].campaign.mode != "mean":
        fronts = {merges[at][0].key: front for at, front in ranked}
        first = {row.key: fronts[row.key] == 0 and not row.misses(split) for row, _ in merges}
        rows = [replace(row, front=first.get(row.key)) for row in rows]

    experts = [row_key("expert", name) for name in aims[split].campaign.expert_names()]

    def standing(row: Row) -> tuple[int, int, str]:
        within = place.get(row.key, len(place)) if row.kind == "finalist" else 0
        if row.key in experts:
            within = experts.index(row.key)
        return KINDS.index(row.kind), within, row.key if row.kind == "baseline" else ""

    return sorted(rows, key=standing)
