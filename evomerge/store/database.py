"""The SQLite file `study.db`: opened, read where nothing may be written, and backed up."""

from __future__ import annotations

import logging
import shlex
import shutil
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path

from evomerge.errors import EvomergeError, ResultsError
from evomerge.store.folder import BACKUP, DATABASE, UNFINISHED_BACKUP, is_full, rename_whole

SECONDS_TO_WAIT_FOR_ANOTHER = 60
"""For a dashboard that writes a note; a reader never makes a writer wait."""
COPIES = 5
"""Of a file that a driver writes meanwhile, before a reader who may not write gives up."""
SECONDS_BETWEEN_BACKUPS = 60.0
SHARE_OF_TIME = 0.01
"""Most of a campaign's time that goes into backups."""

_LOG = logging.getLogger(__name__)


def connect(path: Path, mode: str, *, implicit: bool = False) -> sqlite3.Connection:
    """Connect by file URI, so that any path will do; FULL: a commit survives a power cut.

    Args:
        path: The file.
        mode: `ro`, `rw`, or `rwc` for a file that is being made, which is synced when it is whole.
        implicit: Transactions begin by themselves, as Optuna expects.
    """
    connection = sqlite3.connect(
        f"{path.resolve().as_uri()}?mode={mode}",
        uri=True,
        timeout=SECONDS_TO_WAIT_FOR_ANOTHER,
        check_same_thread=False,
        isolation_level="DEFERRED" if implicit else None,
    )
    connection.execute(f"PRAGMA synchronous={'OFF' if mode == 'rwc' else 'FULL'}")
    return connection


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Connect without the right to write: not a byte is changed, and a writer is not disturbed.

    SQLite makes files beside a database in WAL mode even to read it. Where it may not (a folder that may only
    be read, a read-only mount, a write-ahead log that a copy left behind), a copy in memory is read.

    Raises:
        ResultsError: The file is damaged or cannot be read.
        EvomergeError: It is being written to meanwhile.
    """
    if _can_be_read(path):
        return connect(path, "ro")
    memory = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
    try:
        with tempfile.TemporaryDirectory(prefix="evomerge-") as folder:
            copy = _copied(path, Path(folder))
            with closing(sqlite3.connect(copy)) as source:
                source.backup(memory)
    except sqlite3.DatabaseError as error:
        raise trouble(error, path) from None
    except OSError as error:
        raise ResultsError(f"cannot be read: {error.strerror or error}", file=path) from None
    return memory


def trouble(error: BaseException | None, path: Path) -> EvomergeError:
    """Return what to tell the user of an error in reading or writing the database `path`."""
    if not isinstance(error, sqlite3.OperationalError):
        return damaged(error, path)
    says = str(error)
    if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_IOERR and is_full(path.parent):
        says = f"the disk is full ({says})"
    return EvomergeError(
        f"{path}: {says}; what was finished is kept: make room or free the file, then "
        f"`evomerge resume {path.parent}`"
    )


def damaged(finding: object, path: Path) -> ResultsError:
    """Return what to tell the user of a damaged database: a command restores its last backup."""
    return ResultsError(f"is damaged: {finding}; {_how_to_restore(path)}", file=path)


class Backups:
    """SQLite's copies of the database, for the day on which a disk damages it; the first is due at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        wait = SECONDS_BETWEEN_BACKUPS if (folder / BACKUP).exists() else 0.0
        self._next = time.monotonic() + wait

    @property
    def due(self) -> bool:
        """Whether it is time for a copy."""
        return time.monotonic() >= self._next

    def write(self, connection: sqlite3.Connection) -> None:
        """Copy the database; without room for another copy, the last one stays."""
        start = time.monotonic()
        aside = self._folder / UNFINISHED_BACKUP
        aside.unlink(missing_ok=True)
        try:
            with closing(sqlite3.connect(aside)) as copy:
                copy.execute("PRAGMA synchronous=OFF")  # synced as a whole, before it is renamed
                connection.backup(copy)
            rename_whole(aside, self._folder / BACKUP)
        except (OSError, sqlite3.OperationalError) as error:
            _LOG.info("%s: not brought up to date: %s", self._folder / BACKUP, error)
            aside.unlink(missing_ok=True)
        end = time.monotonic()
        self._next = end + max(SECONDS_BETWEEN_BACKUPS, (end - start) / SHARE_OF_TIME)


def _can_be_read(path: Path) -> bool:
    """Tell whether SQLite can read the file where it lies; a damaged one counts as such."""
    try:
        with closing(connect(path, "ro")) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        code = error.sqlite_errorcode & 0xFF
        return code not in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
    return True


def _copied(path: Path, folder: Path) -> Path:
    """Copy a database and its write-ahead log, both of one moment."""
    log = path.with_name(f"{path.name}-wal")
    for _ in range(COPIES):
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


def _how_to_restore(database: Path) -> str:
    backup = database.with_name(BACKUP)
    if database.name != DATABASE or not backup.exists():
        return "no backup was found: restore it from a copy, or start again with --force"
    taken = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(backup.stat().st_mtime))
    old = " ".join(shlex.quote(f"{database}{suffix}") for suffix in ("-wal", "-shm"))
    new = f"{shlex.quote(str(backup))} {shlex.quote(str(database))}"
    folder = shlex.quote(str(database.parent))
    return (
        f"restore its backup of {taken} and go on from there with: rm -f {old} && cp {new} && "
        f"evomerge resume {folder}"
    )
