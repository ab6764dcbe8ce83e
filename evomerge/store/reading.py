"""The state of a campaign, read from its events in their order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from evomerge.candidate.trial import Split
from evomerge.kinds import read
from evomerge.store.encoding import Ids, outcome_from_json
from evomerge.store.events import EventLog
from evomerge.store.records import (
    Evaluation,
    StoredBaseline,
    StoredGradient,
    StoredTrial,
    Winner,
)


def read_trials(log: EventLog, ids: Ids) -> tuple[StoredTrial, ...]:
    """Read every trial, in the order of their numbers."""
    found: dict[str, StoredTrial] = {}
    for seq, kind, key, content in log.read("asked", "told"):
        if kind == "asked":
            form = content["candidate"]
            found[key] = StoredTrial(content["number"], content["params"], form, asked_seq=seq)
            continue
        values = content["values"]
        found[key] = replace(
            found[key],
            state=content["state"],
            outcome=outcome_from_json(content["outcome"], ids),
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
    for _, _, row, content in log.read("evaluated", key=key):
        found.pop(row, None)
        found[row] = Evaluation(
            content["key"],
            content["kind"],
            content["number"],
            content["split"],
            read(content["candidate"]),
            outcome_from_json(content["outcome"], ids(content["split"])),
        )
    winner = read_winner(log)
    return tuple(
        replace(one, kind="winner") if winner is not None and one.number == winner.number else one
        for one in found.values()
    )


def read_winner(log: EventLog) -> Winner | None:
    """Read the winner, the last that was chosen; None before one is."""
    winner = None
    for *_, content in log.read("chosen"):
        candidate = read(content["candidate"])
        winner = Winner(content["number"], content["how"], candidate)
    return winner
