"""A trial's rows in both sets of tables, Optuna's and ours: asked, told, and read back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from sqlalchemy import Connection, select

from evomerge.candidate.trial import Candidate
from evomerge.store import optuna_tables
from evomerge.store.database import plain
from evomerge.store.encoding import encode_json, encode_numbers
from evomerge.store.outcomes import (
    ItemSets,
    NewEvaluation,
    PackedOutcome,
    insert_evaluations,
    read_trial_outcomes,
)
from evomerge.store.recipe_forms import RecipeForms, read_forms, recipe_of
from evomerge.store.records import Asked, State, StoredTrial, Told, by_task
from evomerge.store.tables import TRIALS


def insert_asked(
    connection: sqlite3.Connection,
    study_id: int,
    entry: Asked,
    texts: optuna_tables.DistributionTexts,
    forms: RecipeForms,
    seq: int,
) -> None:
    """Write a trial that begins.

    Args:
        connection: With an open transaction.
        study_id: Optuna's id of the study.
        entry: The trial.
        texts: Cache of distributions.
        forms: Cache of the recipes' forms.
        seq: Its place in the order of events.
    """
    recipe, parts, number = entry.candidate.recipe, entry.parts, _number(entry.candidate)
    trial_id = optuna_tables.insert_running(
        connection,
        study_id,
        number,
        entry.params,
        entry.distributions,
        texts,
        {"method": recipe.method},
    )
    form = forms.number(connection, recipe, parts)
    connection.execute(
        "INSERT INTO evomerge_trials (number, trial_id, recipe_form_id, numbers, state, asked_seq) "
        "VALUES (?, ?, ?, ?, 'asked', ?)",
        (number, trial_id, form, encode_numbers(parts.numbers), seq),
    )


def update_told(
    connection: sqlite3.Connection,
    item_sets: ItemSets,
    entries: Sequence[tuple[Told, PackedOutcome, int]],
) -> None:
    """Write what came of trials.

    Args:
        connection: With an open transaction.
        item_sets: Cache of ids.
        entries: Each trial, its outcome, and its place in the order of events.

    Raises:
        ValueError: One of them was not asked, or was told already.
    """
    ids = [_running(connection, _number(entry.candidate)) for entry, *_ in entries]
    if len(set(ids)) < len(ids):
        raise ValueError("a trial is told twice")
    ends = [
        optuna_tables.End(
            trial_id, entry.values, entry.outcome.cost.items if _is_pruned(entry) else None
        )
        for trial_id, (entry, *_) in zip(ids, entries, strict=True)
    ]
    optuna_tables.finish(connection, ends)
    connection.executemany(
        "UPDATE evomerge_trials SET state = ?, objectives = ?, told_seq = ? WHERE number = ?",
        [
            (
                _state(entry),
                None if entry.values is None else encode_json(list(entry.values)),
                seq,
                entry.candidate.number,
            )
            for entry, _, seq in entries
        ],
    )
    for end, (entry, *_) in zip(ends, entries, strict=True):
        if attrs := _attrs(entry):
            optuna_tables.set_user_attrs(connection, end.trial_id, attrs)
    evaluations = [
        NewEvaluation(entry.candidate, "trial", "search", packed) for entry, packed, _ in entries
    ]
    insert_evaluations(connection, item_sets, evaluations)


def read_trials(
    connection: Connection, study_id: int, item_sets: ItemSets
) -> tuple[StoredTrial, ...]:
    """Read every trial, in the order of their numbers."""
    rows = connection.execute(select(TRIALS).order_by(TRIALS.c.number)).all()
    outcomes = read_trial_outcomes(connection, item_sets)
    params = optuna_tables.read_params(plain(connection), study_id)
    forms = read_forms(connection)
    return tuple(
        StoredTrial(
            number=row.number,
            params=params.get(row.trial_id, {}),
            recipe=recipe_of(forms[row.recipe_form_id], row.numbers),
            state=row.state,
            outcome=outcomes.get(row.number),
            values=None if row.objectives is None else tuple(json.loads(row.objectives)),
            asked_seq=row.asked_seq,
            told_seq=row.told_seq,
        )
        for row in rows
    )


def _running(connection: sqlite3.Connection, number: int) -> int:
    """Return Optuna's id of a trial that was asked, and not told."""
    row = connection.execute(
        "SELECT trial_id, state FROM evomerge_trials WHERE number = ?", (number,)
    ).fetchone()
    if row is None or row[1] != "asked":
        raise ValueError(f"trial {number} is {row[1] if row else 'unknown'}, not asked")
    return int(row[0])


def _attrs(entry: Told) -> dict[str, object]:
    """Return what Optuna's tables hold besides: scores by task, or why there are none."""
    if (failure := entry.outcome.failure) is not None:
        return {"failure": f"{failure.kind}: {failure.reason}"}
    if _is_pruned(entry):
        estimate, items = list(entry.values or ()), entry.outcome.cost.items
        return {"estimate": estimate, "pruned after items": items}
    return dict(by_task(entry.outcome))


def _is_pruned(entry: Told) -> bool:
    return _state(entry) == "pruned"


def _state(entry: Told) -> State:
    if entry.values is None:
        return "failed"
    return "pruned" if entry.pruned else "complete"


def _number(candidate: Candidate) -> int:
    if candidate.number is None:
        raise ValueError(f"{candidate.name} is no trial: it has no number")
    return candidate.number
