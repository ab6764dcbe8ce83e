"""The SQLite file: opened in WAL mode, checked, and its troubles told in one line."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
from optuna.storages import RDBStorage
from sqlalchemy import Connection, Engine, create_engine, event, select
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.pool import StaticPool

from evomerge.errors import EvomergeError, ResultsError
from evomerge.store.tables import META, METADATA, SCHEMA_VERSION

SECONDS_TO_WAIT_FOR_A_READER = 60


def create_database(path: Path) -> RDBStorage:
    """Create a database with Optuna's tables and ours."""
    storage = open_optuna_storage(path, create=True)
    METADATA.create_all(storage.engine)
    return storage


def open_optuna_storage(path: Path, *, create: bool = False) -> RDBStorage:
    """Open the file as an Optuna storage that may write.

    Raises:
        ResultsError: It was written by a version of Optuna whose tables differ.
    """
    logging.getLogger("optuna").setLevel(logging.WARNING)
    engine_kwargs = {"connect_args": {"timeout": SECONDS_TO_WAIT_FOR_A_READER}}
    with _durable_connections():
        try:
            return RDBStorage(
                f"sqlite:///{path}", engine_kwargs=engine_kwargs, skip_table_creation=not create
            )
        except RuntimeError as error:
            raise ResultsError(
                f"was written by another version of Optuna than {optuna.__version__}: {error}",
                file=path,
            ) from None


def open_engine(path: Path, *, write: bool) -> Engine:
    """Open our tables in an existing file.

    Args:
        path: The file.
        write: False: not a byte is changed, and a writer is not disturbed.
    """
    mode = "rw" if write else "ro"
    engine = create_engine(
        f"sqlite:///file:{quote(str(path))}?mode={mode}&uri=true",
        connect_args={"timeout": SECONDS_TO_WAIT_FOR_A_READER, "check_same_thread": False},
        poolclass=StaticPool,
    )
    if write:
        event.listen(engine, "connect", _make_durable)
    return engine


def check_database(engine: Engine, path: Path, *, thorough: bool) -> None:
    """Refuse a file that is damaged or not ours.

    Args:
        engine: The opened file.
        path: Its name, for the messages.
        thorough: Read every page.

    Raises:
        ResultsError: It is damaged, has no tables of ours, or was written by a newer evomerge.
    """
    damaged = "is damaged: {}; restore it from a copy, or start anew with --force"
    try:
        with engine.connect() as connection:
            names = connection.exec_driver_sql("SELECT name FROM sqlite_master").scalars().all()
            if META.name not in names:
                raise ResultsError("holds no campaign of evomerge", file=path)
            found = connection.execute(select(META.c.value).where(META.c.key == "schema")).scalar()
            if found is None or int(found) > SCHEMA_VERSION:
                raise ResultsError(
                    f"was written by a newer evomerge (schema {found}, this one reads up to "
                    f"{SCHEMA_VERSION}); update evomerge",
                    file=path,
                )
            if thorough:
                verdict = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
                if verdict != "ok":
                    raise ResultsError(damaged.format(verdict), file=path)
    except DatabaseError as error:
        raise ResultsError(damaged.format(error.orig), file=path) from None


@contextmanager
def transaction(engine: Engine, path: Path) -> Iterator[Connection]:
    """Do everything in the block or nothing of it; on the disk before the block is left.

    Raises:
        EvomergeError: The disk is full, or the file cannot be written or read.
    """
    try:
        with engine.begin() as connection:
            yield connection
    except OperationalError as error:
        raise EvomergeError(
            f"{path}: {error.orig}; nothing that was finished is lost: make room or free the file, "
            f"then `evomerge resume {path.parent}`"
        ) from None
    except DatabaseError as error:
        raise ResultsError(f"is damaged: {error.orig}; restore it from a copy", file=path) from None


@contextmanager
def _durable_connections() -> Iterator[None]:
    """Make every connection opened in the block durable, those of engines yet to be built included."""
    event.listen(Engine, "connect", _make_durable)
    try:
        yield
    finally:
        event.remove(Engine, "connect", _make_durable)


def _make_durable(connection: Any, _record: Any) -> None:  # noqa: ANN401 - DB-API objects
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
