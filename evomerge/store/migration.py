"""Databases of an older evomerge: brought up to date in place, or in memory for those who only look.

2 added the steps of descents and the prunings; 3 stores a recipe by its form and its numbers.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, select, update
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import StaticPool

from evomerge.recipe import parts
from evomerge.store.database import plain, transaction, trouble
from evomerge.store.encoding import decode_recipe, encode_numbers
from evomerge.store.recipe_forms import RecipeForms
from evomerge.store.tables import META, METADATA, SCHEMA_VERSION

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
        if _schema(connection) == SCHEMA_VERSION:
            return
        connection.exec_driver_sql(f"ALTER TABLE evomerge_trials RENAME TO {_OLD}")
        METADATA.create_all(connection)
        _copy_trials(plain(connection))
        connection.exec_driver_sql(f"DROP TABLE {_OLD}")
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
