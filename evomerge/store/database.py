"""The SQLite file: opened in WAL mode, checked, and its troubles told in one line."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from sqlalchemy import Connection, Engine, create_engine, event, select
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import NullPool, StaticPool

from evomerge.errors import EvomergeError, ResultsError
from evomerge.store.backup import how_to_restore
from evomerge.store.folder import BACKUP, is_full
from evomerge.store.tables import META, METADATA, SCHEMA_VERSION

SECONDS_TO_WAIT_FOR_ANOTHER = 60
"""For a dashboard that writes a note; a reader never makes a writer wait."""


METRIC_NAMES = "study:metric_names"
"""Where `optuna.Study.metric_names` looks."""


def create_database(
    path: Path, study_name: str, directions: Sequence[str], metric_names: Sequence[str] = ()
) -> int:
    """Create a file with Optuna's tables and ours, and an Optuna study in it.

    Args:
        path: The file.
        study_name: Of the study.
        directions: `maximize` or `minimize`, one an objective value.
        metric_names: What each objective value is called; empty: nothing.

    Returns:
        The study's id.

    Raises:
        EvomergeError: The disk is full, or the file cannot be written.
    """
    try:
        storage = open_optuna_storage(path, create=True)
        study_id: int = storage.create_new_study(
            [StudyDirection[direction.upper()] for direction in directions], study_name
        )
        if metric_names and len(metric_names) == len(directions):
            storage.set_study_system_attr(study_id, METRIC_NAMES, list(metric_names))
        METADATA.create_all(storage.engine)
        close_optuna_storage(storage)
        with closing(_connect(path, "rw")) as connection:
            connection.execute("PRAGMA journal_mode=WAL")  # stays with the file
    except (DatabaseError, sqlite3.DatabaseError) as error:
        raise trouble(error, path) from None
    except StorageInternalError as error:
        raise EvomergeError(f"{path}: {error.__cause__ or error}") from None
    return study_id


def open_optuna_storage(path: Path, *, create: bool = False) -> RDBStorage:
    """Open the file as an Optuna storage.

    Raises:
        ResultsError: It was written by a version of Optuna whose tables differ.
    """
    mode = "rwc" if create else "rw"
    engine_kwargs = {
        "creator": lambda: _connect(path, mode, autocommit=False),
        "poolclass": NullPool,
    }
    return _optuna_storage(path, engine_kwargs, create=create)


def copied_optuna_storage(engine: Engine, path: Path) -> RDBStorage:
    """Return an Optuna storage of a copy in memory, which needs no right to write to the file.

    Args:
        engine: The opened file.
        path: Its name, for the messages.

    Raises:
        ResultsError: It was written by a version of Optuna whose tables differ.
    """
    copy = sqlite3.connect(":memory:", check_same_thread=False)
    try:
        with engine.connect() as source:  # without a transaction, which would wait for itself
            plain(source).backup(copy)
    except (DatabaseError, sqlite3.DatabaseError) as error:
        raise trouble(error, path) from None
    return _optuna_storage(path, {"creator": lambda: copy, "poolclass": StaticPool}, create=False)


def close_optuna_storage(storage: RDBStorage) -> None:
    """Let go of the file."""
    storage.remove_session()
    storage.engine.dispose()


def open_engine(path: Path, *, write: bool) -> Engine:
    """Open our tables in an existing file.

    Args:
        path: The file.
        write: False: not a byte is changed, and a writer is not disturbed.
    """
    mode = "rw" if write else "ro"
    engine = create_engine("sqlite://", creator=lambda: _connect(path, mode), poolclass=StaticPool)
    begin = "BEGIN IMMEDIATE" if write else "BEGIN"
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def can_be_read(path: Path) -> bool:
    """Tell whether SQLite can read the file where it lies; a damaged one counts as such."""
    try:
        with closing(_connect(path, "ro")) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        code = error.sqlite_errorcode & 0xFF
        return code not in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
    except sqlite3.DatabaseError:
        return True
    return True


def check_database(engine: Engine, path: Path, *, thorough: bool) -> None:
    """Refuse a file that is damaged or not ours.

    Args:
        engine: The opened file.
        path: Its name, for the messages.
        thorough: Read every page.

    Raises:
        ResultsError: It is damaged, has no tables of ours, or was written by another version of evomerge.
    """
    with transaction(engine, path) as connection:
        names = connection.exec_driver_sql("SELECT name FROM sqlite_master").scalars().all()
        if META.name not in names and path.with_name(BACKUP).exists():
            raise _damaged("its tables are gone", path)
        if META.name not in names:
            raise ResultsError("holds no campaign of evomerge", file=path)
        found = connection.execute(select(META.c.value).where(META.c.key == "schema")).scalar()
        if found is None or int(found) > SCHEMA_VERSION:
            raise ResultsError(
                f"was written by a newer evomerge (schema {found}, this one reads "
                f"{SCHEMA_VERSION}); update evomerge",
                file=path,
            )
        if int(found) < SCHEMA_VERSION:
            raise ResultsError(
                f"was written by an earlier evomerge (schema {found}, this one reads "
                f"{SCHEMA_VERSION}); finish it with that one, or search again with --force",
                file=path,
            )
        if thorough:
            verdict = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
            if verdict != "ok":
                raise _damaged(verdict, path)


@contextmanager
def transaction(engine: Engine, path: Path) -> Iterator[Connection]:
    """Do everything in the block or nothing of it; on the disk before the block is left.

    Raises:
        EvomergeError: The disk is full, or the file cannot be written or read.
        ResultsError: The file is damaged.
    """
    try:
        with engine.begin() as connection:
            yield connection
    except (DatabaseError, sqlite3.DatabaseError) as error:
        raise trouble(error, path) from None


def plain(connection: Connection) -> sqlite3.Connection:
    """Return SQLite's own connection under a transaction, for what every trial pays for."""
    found = connection.connection.driver_connection
    assert isinstance(found, sqlite3.Connection)
    return found


def trouble(error: DatabaseError | sqlite3.DatabaseError, path: Path) -> EvomergeError:
    """Return what to tell the user of an error of SQLite's.

    Args:
        error: As SQLite or SQLAlchemy raised it.
        path: The database.
    """
    found = error.orig if isinstance(error, DatabaseError) else error
    if not isinstance(found, sqlite3.OperationalError):
        return _damaged(found, path)
    says = str(found)
    if found.sqlite_errorcode & 0xFF == sqlite3.SQLITE_IOERR and is_full(path.parent):
        says = f"the disk is full ({says})"
    return EvomergeError(
        f"{path}: {says}; what was finished is kept: make room or free the file, then "
        f"`evomerge resume {path.parent}`"
    )


def _optuna_storage(path: Path, engine_kwargs: dict[str, Any], *, create: bool) -> RDBStorage:
    logging.getLogger("optuna").setLevel(logging.ERROR)
    try:
        return RDBStorage("sqlite://", engine_kwargs=engine_kwargs, skip_table_creation=not create)
    except RuntimeError as error:
        raise ResultsError(
            f"was written by another version of Optuna than {optuna.__version__}: {error}",
            file=path,
        ) from None


def _connect(path: Path, mode: str, *, autocommit: bool = True) -> sqlite3.Connection:
    """Connect by file URI, so that any path will do; FULL: a commit survives a power cut.

    A file that is only being made is not synced step by step: it is put in its place when it is whole.
    """
    connection = sqlite3.connect(
        f"{path.resolve().as_uri()}?mode={mode}",
        uri=True,
        timeout=SECONDS_TO_WAIT_FOR_ANOTHER,
        check_same_thread=False,
        isolation_level=None if autocommit else "DEFERRED",
    )
    connection.execute(f"PRAGMA synchronous={'OFF' if mode == 'rwc' else 'FULL'}")
    return connection


def _damaged(finding: object, path: Path) -> ResultsError:
    return ResultsError(f"is damaged: {finding}; {how_to_restore(path)}", file=path)
