"""A trial's rows in both sets of tables, Optuna's and ours: asked, told, and read back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from sqlalchemy import Connection, select

from evomerge.candidate.trial import Entry
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
    trial: Asked,
    texts: optuna_tables.DistributionTexts,
    forms: RecipeForms,
    seq: int,
) -> None:
    """Write a trial that begins.

    Args:
        connection: With an open transaction.
        study_id: Optuna's id of the study.
        trial: The trial.
        texts: Cache of distributions.
        forms: Cache of the recipes' forms.
        seq: Its place in the order of events.
    """
    recipe, parts, number = trial.entry.candidate, trial.parts, _number(trial.entry)
    trial_id = optuna_tables.insert_running(
        connection,
        study_id,
        number,
        trial.params,
        trial.distributions,
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
    ids = [_running(connection, _number(trial.entry)) for trial, *_ in entries]
    if len(set(ids)) < len(ids):
        raise ValueError("a trial is told twice")
    ends = [
        optuna_tables.End(
            trial_id, trial.values, trial.outcome.cost.items if _is_pruned(trial) else None
        )
        for trial_id, (trial, *_) in zip(ids, entries, strict=True)
    ]
    optuna_tables.finish(connection, ends)
    connection.executemany(
        "UPDATE evomerge_trials SET state = ?, objectives = ?, told_seq = ? WHERE number = ?",
        [
            (
                _state(trial),
                None if trial.values is None else encode_json(list(trial.values)),
                seq,
                trial.entry.number,
            )
            for trial, _, seq in entries
        ],
    )
    for end, (trial, *_) in zip(ends, entries, strict=True):
        if attrs := _attrs(trial):
            optuna_tables.set_user_attrs(connection, end.trial_id, attrs)
    evaluations = [
        NewEvaluation(trial.entry, "trial", "search", packed) for trial, packed, _ in entries
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
            candidate=recipe_of(forms[row.recipe_form_id], row.numbers),
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


def _attrs(trial: Told) -> dict[str, object]:
    """Return what Optuna's tables hold besides: scores by task, or why there are none."""
    if (failure := trial.outcome.failure) is not None:
        return {"failure": f"{failure.kind}: {failure.reason}"}
    if _is_pruned(trial):
        estimate, items = list(trial.values or ()), trial.outcome.cost.items
        return {"estimate": estimate, "pruned after items": items}
    return dict(by_task(trial.outcome))


def _is_pruned(trial: Told) -> bool:
    return _state(trial) == "pruned"


def _state(trial: Told) -> State:
    if trial.values is None:
        return "failed"
    return "pruned" if trial.pruned else "complete"


def _number(entry: Entry) -> int:
    if entry.number is None:
        raise ValueError(f"{entry.name} is no trial: it has no number")
    return entry.number
