"""Opening the study database of a results folder: checked first.

Reading needs no right to write: not in a folder that may only be read, not on a read-only mount,
and not where the files of SQLite's write-ahead log were left behind by a copy.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path

from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import StaticPool

from evomerge.errors import EvomergeError, ResultsError
from evomerge.store.database import (
    can_be_read,
    check_database,
    close_optuna_storage,
    open_engine,
    open_optuna_storage,
    trouble,
)

ATTEMPTS = 5
"""Copies of files that another process changes meanwhile, before giving up."""


def open_database(path: Path, *, write: bool) -> Engine:
    """Open a database, or a copy of it in memory where it may only be read.

    Args:
        path: The file.
        write: False: not a byte is changed, and a writer is not disturbed.

    Raises:
        ResultsError: It is damaged, cannot be read, is not ours, or of another version.
    """
    with ExitStack() as undo:
        engine = open_engine(path, write=True) if write else _for_reading(path)
        undo.callback(engine.dispose)
        check_database(engine, path, thorough=write)
        if write:
            close_optuna_storage(open_optuna_storage(path))
        undo.pop_all()
    return engine


def _for_reading(path: Path) -> Engine:
    """SQLite makes files beside a database in WAL mode even to read it: where it may not, read a copy."""
    if can_be_read(path):
        return open_engine(path, write=False)
    connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="evomerge-") as folder,
            closing(sqlite3.connect(_copied(path, Path(folder)))) as source,
        ):
            source.backup(connection)
    except sqlite3.DatabaseError as error:
        raise trouble(error, path) from None
    except OSError as error:
        raise ResultsError(f"cannot be read: {error.strerror or error}", file=path) from None
    return create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)


def _copied(path: Path, folder: Path) -> Path:
    """Copy a database and its log, both of one moment."""
    log = path.with_name(f"{path.name}-wal")
    for _ in range(ATTEMPTS):
        before = _state(path), _state(log)
        copy = Path(shutil.copyfile(path, folder / path.name))
        (folder / log.name).unlink(missing_ok=True)
        if before[1] is not None:
            shutil.copyfile(log, folder / log.name)
        if before == (_state(path), _state(log)):
            return copy
    raise EvomergeError(f"{path}: is being written to, and cannot be read meanwhile; try again")


def _state(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_size, found.st_mtime_ns
