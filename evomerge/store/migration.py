"""Databases of an older evomerge: brought up to date in place, or in memory for those who only look.

2 added the steps of descents and the prunings; 3 stores a recipe by its form and its numbers; 4 gives rows
keys in place of names, keeps one winner, and the tracebacks of failures.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

from sqlalchemy import Connection, Engine, MetaData, create_engine, select, update
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import StaticPool

from evomerge.recipe import parts
from evomerge.store.database import plain, transaction, trouble
from evomerge.store.encoding import decode_recipe, encode_json, encode_numbers
from evomerge.store.recipe_forms import RecipeForms
from evomerge.store.tables import EVALUATIONS, META, METADATA, SCHEMA_VERSION
from evomerge.trial import row_key

_SCHEMA = META.c.key == "schema"
_OLD = "evomerge_trials_of_schema_2"


def is_up_to_date(engine: Engine, path: Path) -> bool:
    """Return whether a checked file has the schema of this evomerge.

    Args:
        engine: The opened file.
        path: Its name, for the messages.
    """
    with transaction(engine, path) as connection:
        return _schema(connection) == SCHEMA_VERSION


def bring_up_to_date(engine: Engine, path: Path) -> None:
    """Change an older file's tables to those of this evomerge; what is in it stays.

    Args:
        engine: The file, opened for writing, and checked.
        path: Its name, for the messages.
    """
    with transaction(engine, path) as connection:
        schema = _schema(connection)
        if schema == SCHEMA_VERSION:
            return
        if schema < 3:
            connection.exec_driver_sql(f"ALTER TABLE evomerge_trials RENAME TO {_OLD}")
        METADATA.create_all(connection)
        if schema < 3:
            _copy_trials(plain(connection))
            connection.exec_driver_sql(f"DROP TABLE {_OLD}")
        _add_traces_of_steps(plain(connection))
        _key_evaluations(connection)
        _keep_last_winner(plain(connection))
        _key_models(connection)
        connection.execute(update(META).where(_SCHEMA).values(value=str(SCHEMA_VERSION)))


def in_memory(engine: Engine, path: Path) -> Engine:
    """Return a copy of an older file, brought up to date, that vanishes when it is closed.

    Args:
        engine: The file.
        path: Its name, for the messages.
    """
    connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
    try:
        with engine.connect() as source:  # without a transaction, which would wait for itself
            plain(source).backup(connection)
    except (DatabaseError, sqlite3.DatabaseError) as error:
        raise trouble(error, path) from None
    copy = create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)
    bring_up_to_date(copy, path)
    return copy


def _schema(connection: Connection) -> int:
    return int(connection.execute(select(META.c.value).where(_SCHEMA)).scalar_one())


def _copy_trials(connection: sqlite3.Connection) -> None:
    """Copy what the trials are; their params stand in Optuna's tables."""
    forms = RecipeForms()
    query = f"SELECT number, trial_id, recipe, state, objectives, asked_seq, told_seq FROM {_OLD}"
    for number, trial_id, text, *rest in connection.execute(query).fetchall():
        recipe = decode_recipe(text)
        apart = parts(recipe)
        form, numbers = forms.number(connection, recipe, apart), encode_numbers(apart.numbers)
        connection.execute(
            "INSERT INTO evomerge_trials (number, trial_id, recipe_form_id, numbers, state, "
            "objectives, asked_seq, told_seq) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (number, trial_id, form, numbers, *rest),
        )


def _add_traces_of_steps(connection: sqlite3.Connection) -> None:
    columns = [row[1] for row in connection.execute("PRAGMA table_info(evomerge_slope_steps)")]
    if "failure_trace" not in columns:  # a table that was only now created has it
        connection.execute("ALTER TABLE evomerge_slope_steps ADD COLUMN failure_trace TEXT")


def _key_evaluations(connection: Connection) -> None:
    """Rebuild the table, which other tables refer to by its name: filled aside, then renamed."""
    aside = "evomerge_evaluations_of_schema_4"
    EVALUATIONS.to_metadata(MetaData(), name=aside).create(connection)
    database = plain(connection)
    database.create_function("row_key", 3, row_key, deterministic=True)
    kept = [column.name for column in EVALUATIONS.columns if column.name != "failure_trace"]
    names = ", ".join(name for name in kept if name != "key")
    database.execute(
        f"INSERT INTO {aside} ({names}, key) SELECT {names}, row_key(kind, name, number) "
        f"FROM {EVALUATIONS.name}"
    )
    database.execute(f"DROP TABLE {EVALUATIONS.name}")
    database.execute(f"ALTER TABLE {aside} RENAME TO {EVALUATIONS.name}")


def _keep_last_winner(connection: sqlite3.Connection) -> None:
    """Of several, the last one is the one that was saved."""
    winners = "FROM evomerge_evaluations WHERE kind = 'winner' AND number IS NOT NULL"
    connection.execute(
        f"INSERT INTO evomerge_winners (number, recipe, how) SELECT number, recipe, ? {winners} "
        "ORDER BY evaluation_id",
        ("chosen by an earlier evomerge",),
    )
    connection.execute("UPDATE evomerge_evaluations SET kind = 'finalist' WHERE kind = 'winner'")


def _key_models(connection: Connection) -> None:
    """Name the hashes of the models in the facts as rows are named."""
    facts_of = META.c.key == "facts"
    facts = json.loads(connection.execute(select(META.c.value).where(facts_of)).scalar_one())
    if "models" in facts:
        facts["models"] = {
            row_key("base" if name == "base" else "expert", name): digest
            for name, digest in facts["models"].items()
        }
        connection.execute(update(META).where(facts_of).values(value=encode_json(facts)))
