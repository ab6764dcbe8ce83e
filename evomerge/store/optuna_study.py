"""The Optuna study in `study.db`, which dashboards read; evomerge itself only writes it.

A trial's rows are written in plain SQL, in the caller's transaction. Optuna's own storage takes three
statements a parameter: one `create_new_trial` of a finished trial costs 40 ms of processor time at 40
parameters and 130 ms at 160 (asked and told apart: 60 and 150 ms, and 8 transactions); this way it is under
1 ms. Tests compare the rows with Optuna's own, and the tables of another Optuna are refused.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import NullPool, Pool, StaticPool

from evomerge.config import Campaign
from evomerge.errors import EvomergeError, ResultsError
from evomerge.store.database import connect, trouble
from evomerge.store.events import EventLog
from evomerge.store.folder import DATABASE, UNFINISHED, rename_whole, unwritable

METRIC_NAMES = "study:metric_names"
"""Where `optuna.Study.metric_names` looks."""
NOTE_PIECE = 2045
"""Characters of a note that optuna-dashboard keeps together."""
STUDY_ID = 1
"""Of the only study of the file."""

_distribution_json = lru_cache(maxsize=2**14)(distribution_to_json)


def create_database(
    folder: Path, campaign: Campaign, facts: Mapping[str, Any], directions: Sequence[str]
) -> None:
    """Make `study.db`, with the event of its begin: aside, and put in its place when it is whole.

    Raises:
        EvomergeError: The disk is full or not writable.
    """
    aside, path = folder / UNFINISHED, folder / DATABASE
    create_study(aside, campaign, directions)
    EventLog.create(aside, {"campaign": campaign.to_yaml(), "facts": facts})
    try:
        rename_whole(aside, path)
    except OSError as error:
        raise unwritable(path, error) from None


def create_study(path: Path, campaign: Campaign, directions: Sequence[str]) -> None:
    """Create a file with Optuna's tables and the campaign's study in it.

    Raises:
        EvomergeError: The disk is full, or the file cannot be written.
    """
    try:
        storage = open_storage(path, create=True)
        study = storage.create_new_study(
            [StudyDirection[direction.upper()] for direction in directions], campaign.name
        )
        assert study == STUDY_ID
        storage.set_study_system_attr(study, METRIC_NAMES, list(campaign.value_names))
        close_storage(storage)
    except DatabaseError as error:
        raise trouble(error.orig, path) from None
    except StorageInternalError as error:
        raise EvomergeError(f"{path}: {error.__cause__ or error}") from None


def open_storage(path: Path, *, create: bool = False) -> RDBStorage:
    """Open the file as an Optuna storage.

    Raises:
        ResultsError: It was written by a version of Optuna whose tables differ.
    """
    mode = "rwc" if create else "rw"
    return _storage(path, lambda: connect(path, mode, implicit=True), NullPool, create=create)


def close_storage(storage: RDBStorage) -> None:
    """Let go of the file."""
    storage.remove_session()
    storage.engine.dispose()


def load_copy(connection: sqlite3.Connection, path: Path, name: str) -> optuna.Study:
    """Return the study `name` of a copy in memory, which needs no right to write to the file `path`.

    Raises:
        ResultsError: It was written by a version of Optuna whose tables differ.
    """
    copy = sqlite3.connect(":memory:", check_same_thread=False)
    try:
        connection.backup(copy)
    except sqlite3.DatabaseError as error:
        raise trouble(error, path) from None
    storage = _storage(path, lambda: copy, StaticPool, create=False)
    return optuna.load_study(study_name=name, storage=storage)


def read_distributions(connection: sqlite3.Connection) -> dict[str, BaseDistribution]:
    """Return the distributions of the first trial's parameters; none before there is a trial."""
    query = "SELECT param_name, distribution_json FROM trial_params WHERE trial_id = 1"
    return {name: json_to_distribution(found) for name, found in connection.execute(query)}


def insert_running(
    connection: sqlite3.Connection,
    number: int,
    params: Mapping[str, Any],
    distributions: Mapping[str, BaseDistribution],
    user_attrs: Mapping[str, Any],
) -> None:
    """Insert a running trial, in the open transaction."""
    trial_id = number + 1
    connection.execute(
        "INSERT INTO trials (trial_id, number, study_id, state, datetime_start) "
        "VALUES (?, ?, ?, ?, ?)",
        (trial_id, number, STUDY_ID, TrialState.RUNNING.name, _now()),
    )
    connection.executemany(
        "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) "
        "VALUES (?, ?, ?, ?)",
        [
            (trial_id, name, one.to_internal_repr(params[name]), _distribution_json(one))
            for name, one in distributions.items()
            if name in params
        ],
    )
    _insert_user_attrs(connection, trial_id, user_attrs)


def finish(
    connection: sqlite3.Connection,
    number: int,
    values: Sequence[float] | None,
    user_attrs: Mapping[str, Any],
    note: str = "",
    pruned_after: int | None = None,
) -> None:
    """Make a running trial complete, pruned, or failed, in the open transaction.

    Args:
        connection: To the database.
        number: The trial's number.
        values: Finite objective values; of a pruned trial, their estimates; None: it failed.
        user_attrs: Name → JSON value, that the trial does not have yet.
        note: Markdown that dashboards show beside it.
        pruned_after: Items after which it was pruned. As in Optuna the value of a pruned trial is that
            of its last intermediate value; Optuna has none for several objectives.
    """
    trial_id = number + 1
    state = TrialState.COMPLETE if pruned_after is None else TrialState.PRUNED
    if values is None:
        state = TrialState.FAIL
    connection.execute(
        "UPDATE trials SET state = ?, datetime_complete = ? WHERE trial_id = ?",
        (state.name, _now(), trial_id),
    )
    if state is TrialState.PRUNED and values is not None and len(values) == 1:
        connection.execute(
            "INSERT INTO trial_intermediate_values (trial_id, step, intermediate_value, "
            "intermediate_value_type) VALUES (?, ?, ?, 'FINITE')",
            (trial_id, pruned_after, *values),
        )
    connection.executemany(
        "INSERT INTO trial_values (trial_id, objective, value, value_type) "
        "VALUES (?, ?, ?, 'FINITE')",
        [(trial_id, index, value) for index, value in enumerate(values or ())],
    )
    _insert_user_attrs(connection, trial_id, user_attrs)
    if note:
        _insert_note(connection, trial_id, note)


def _insert_user_attrs(
    connection: sqlite3.Connection, trial_id: int, attrs: Mapping[str, Any]
) -> None:
    connection.executemany(
        "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (?, ?, ?)",
        [(trial_id, key, json.dumps(value)) for key, value in attrs.items()],
    )


def _insert_note(connection: sqlite3.Connection, trial_id: int, note: str) -> None:
    """Insert it as optuna-dashboard does: an attribute of the study, in pieces, beside its version."""
    starts = range(0, len(note), NOTE_PIECE)
    found: dict[str, object] = {f"dashboard:{trial_id}:note_ver": 1}
    found |= {
        f"dashboard:{trial_id}:note_str:{place}": note[start : start + NOTE_PIECE]
        for place, start in enumerate(starts)
    }
    connection.executemany(
        "INSERT INTO study_system_attributes (study_id, key, value_json) VALUES (?, ?, ?)",
        [(STUDY_ID, key, json.dumps(value)) for key, value in found.items()],
    )


def _storage(
    path: Path, creator: Callable[[], sqlite3.Connection], pool: type[Pool], *, create: bool
) -> RDBStorage:
    logging.getLogger("optuna").setLevel(logging.ERROR)
    kwargs = {"creator": creator, "poolclass": pool}
    try:
        return RDBStorage("sqlite://", engine_kwargs=kwargs, skip_table_creation=not create)
    except RuntimeError as error:
        raise ResultsError(
            f"was written by another version of Optuna than {optuna.__version__}: {error}",
            file=path,
        ) from None


def _now() -> str:
    """Return naive UTC, written as Optuna's tables hold it."""
    return datetime.now(UTC).replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
