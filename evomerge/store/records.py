"""What a campaign did, as frozen values, read from its events in their order."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from sys import intern
from typing import Any, Literal

from evomerge.candidate import Arrays, Candidate, no_arrays
from evomerge.candidate.cost import Cost
from evomerge.candidate.trial import Entry, Outcome, Split, row_name
from evomerge.kinds import read
from evomerge.store.encoding import Ids, outcome_from_json
from evomerge.store.events import EventLog

State = Literal["asked", "complete", "pruned", "failed"]


@dataclass(frozen=True)
class StoredTrial:
    """A trial of the campaign.

    Attributes:
        number: From 0, without gaps.
        params: Point of the space.
        form: Text form of the candidate as it was asked.
        state: `asked` (no outcome yet), `complete`, `pruned` (stopped before its last item) or `failed`.
        outcome: What came of it; None as long as it is only asked.
        values: Objective values as told to the sampler, estimates where it was pruned; None unless complete
            or pruned.
        asked_seq: Place in the order of all events, asked and told.
        told_seq: Place of its outcome in the same order; None as long as it is only asked.
        arrays: Gives those that `form` names.
    """

    number: int
    params: Mapping[str, float]
    form: str
    state: State = "asked"
    outcome: Outcome | None = None
    values: tuple[float, ...] | None = None
    asked_seq: int = 0
    told_seq: int | None = None
    arrays: Arrays = field(default=no_arrays, compare=False, repr=False)

    @cached_property
    def candidate(self) -> Candidate:
        """What was tried, with what it has learnt; read when it is first needed."""
        learnt = None if self.outcome is None else self.outcome.candidate
        return read(self.form, self.arrays) if learnt is None else learnt

    @property
    def entry(self) -> Entry:
        """What was evaluated."""
        return Entry(f"trial {self.number}", self.candidate, self.number)

    def to_row(self) -> dict[str, Any]:
        """Return one flat row for a table.

        Number, state, method, values, scores by task, seconds, failure, parameters.
        """
        row: dict[str, Any] = {"number": self.number, "state": self.state}
        row["method"] = self.candidate.label()
        values = self.values or ()
        row |= {"value" if len(values) == 1 else f"value_{i}": v for i, v in enumerate(values)}
        if self.outcome is not None:
            cost, failure = self.outcome.cost, self.outcome.failure
            row |= by_task(self.outcome) if self.state == "complete" else {}
            row["seconds"] = cost.merge_seconds + cost.score_seconds
            row |= {"merge_seconds": cost.merge_seconds, "score_seconds": cost.score_seconds}
            row |= {"failure": None if failure is None else f"{failure.kind}: {failure.reason}"}
        return row | {f"params_{name}": value for name, value in self.params.items()}


def by_task(outcome: Outcome) -> dict[str, float]:
    """Return `TASK/METRIC` → aggregate over the search items, the finite ones."""
    return {
        f"{task}/{metric}": estimate.value
        for task, scores in outcome.scores.items()
        for metric, estimate in scores.values.items()
        if math.isfinite(estimate.value)
    }


@dataclass(frozen=True)
class StoredBaseline:
    """A point told to the sampler that no trial asked for."""

    params: Mapping[str, float]
    values: tuple[float, ...]
    seq: int


@dataclass(frozen=True)
class StoredGradient:
    """A step of a descent.

    Attributes:
        descent: Which descent, from 0.
        step: Which step of it, from 0.
        items: Task → which of its search items.
        params: Where the gradient was taken.
        loss: None as long as it is only asked, and after a failure.
        gradients: Dimension → gradient; empty while the loss is missing.
        failure: Why the loss is missing.
        cost_items: Items that it cost, by which the budget counts.
        asked_seq: Place in the order of all events.
        told_seq: Place of its loss; None as long as it is only asked.
        cost: What it took.
        worker: Who did it.
        failure_trace: The traceback behind a failure; empty where there is none.
    """

    descent: int
    step: int
    items: Mapping[str, tuple[int, ...]]
    params: Mapping[str, float]
    loss: float | None = None
    gradients: Mapping[str, float] = field(default_factory=dict)
    failure: str | None = None
    cost_items: int = 0
    asked_seq: int = 0
    told_seq: int | None = None
    cost: Cost = field(default_factory=Cost)
    worker: str = ""
    failure_trace: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True)
class Evaluation:
    """Scores of a row of the leaderboard on one split.

    Attributes:
        key: Its identity, as `trial.row_key` returns it.
        kind: `base`, `expert`, `baseline`, `finalist` or `winner` (the present one).
        number: The trial's number; None for rows that are not trials.
        split: Of the items.
        candidate: The model.
        outcome: Its scores, or why there are none.
    """

    key: str
    kind: str
    number: int | None
    split: Split
    candidate: Candidate
    outcome: Outcome

    @property
    def name(self) -> str:
        """What reports call it: `base`, an expert's name, a baseline's, or `trial 17`."""
        return row_name(self.key)

    @property
    def entry(self) -> Entry:
        """What was evaluated."""
        role = "trial" if self.number is not None else self.key.partition(":")[0]
        return Entry(self.name, self.candidate, self.number, role)


@dataclass(frozen=True)
class Winner:
    """The model that a campaign saves: a trial, or what was made when an expert joined or left.

    Attributes:
        number: Of the trial; None where it is none.
        how: What chose it, a clause such as `the best of 8 finalists on the select items (0.812)`.
        candidate: The model.
        name: What reports call it.
    """

    number: int | None
    how: str
    candidate: Candidate
    name: str

    @property
    def entry(self) -> Entry:
        """What is saved."""
        role = "finalist" if self.number is None else "trial"
        return Entry(self.name, self.candidate, self.number, role)


def read_trials(log: EventLog, ids: Ids) -> tuple[StoredTrial, ...]:
    """Read every trial, in the order of their numbers."""
    found: dict[str, StoredTrial] = {}
    for seq, kind, key, content in log.read("asked", "told"):
        if kind == "asked":
            form = content["candidate"]
            number = content["number"]
            params = {intern(name): value for name, value in content["params"].items()}
            found[key] = StoredTrial(number, params, form, asked_seq=seq, arrays=log.arrays.get)
            continue
        values = content["values"]
        found[key] = replace(
            found[key],
            state=content["state"],
            outcome=outcome_from_json(
                content["outcome"], ids, partial(log.items, seq), log.arrays.get
            ),
            values=None if values is None else tuple(values),
            told_seq=seq,
        )
    return tuple(found.values())


def read_steps(log: EventLog) -> tuple[StoredGradient, ...]:
    """Read every step of every descent, in the order in which they were asked."""
    found: dict[str, StoredGradient] = {}
    for seq, kind, key, content in log.read("gradient asked", "gradient told"):
        if kind == "gradient asked":
            items = {task: tuple(chosen) for task, chosen in content["items"].items()}
            found[key] = StoredGradient(
                content["descent"], content["step"], items, content["params"], asked_seq=seq
            )
        else:
            content["cost"] = Cost(**content["cost"])
            found[key] = replace(found[key], **content, told_seq=seq)
    return tuple(found.values())


def read_baselines(log: EventLog) -> tuple[StoredBaseline, ...]:
    """Read the points that no trial asked for, in order."""
    return tuple(
        StoredBaseline(content["params"], tuple(content["values"]), seq)
        for seq, _, _, content in log.read("baseline")
    )


def read_evaluations(
    log: EventLog, ids: Callable[[Split], Ids], key: str | None = None
) -> tuple[Evaluation, ...]:
    """Read evaluations, the last one of each model and split; of the winner's rows the kind is `winner`."""
    found: dict[str, Evaluation] = {}
    for seq, _, row, content in log.read("evaluated", key=key):
        found.pop(row, None)
        found[row] = Evaluation(
            content["key"],
            content["kind"],
            content["number"],
            content["split"],
            read(content["candidate"], log.arrays.get),
            outcome_from_json(
                content["outcome"],
                ids(content["split"]),
                partial(log.items, seq),
                log.arrays.get,
            ),
        )
    winner = read_winner(log)
    return tuple(
        replace(one, kind="winner") if winner is not None and one.key == winner.entry.key else one
        for one in found.values()
    )


def read_winner(log: EventLog) -> Winner | None:
    """Read the winner, the last that was chosen; None before one is."""
    winner = None
    for *_, content in log.read("chosen"):
        candidate = read(content["candidate"], log.arrays.get)
        number = content["number"]
        name = content.get("name", f"trial {number}")
        winner = Winner(number, content["how"], candidate, name)
    return winner


def number_of(entry: Entry) -> int:
    """Return a trial's number. Raises ValueError: it is none."""
    if entry.number is None:
        raise ValueError(f"{entry.name} is not a trial: it has no number")
    return entry.number


def step_key(descent: int, step: int) -> str:
    """Return under which key a step of a descent is recorded."""
    return f"step {step} of descent {descent}"
