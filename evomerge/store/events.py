"""The append-only table of events in `study.db`: all that a campaign did, in its order; arrays beside it.

Rows are written once and never changed; a campaign's state is read from them in order. The content of an
event is JSON, compressed: Python writes and reads every float exactly, NaN included. Arrays are bytes by
key, each stored once: those of candidates by their digest, and the present state of each descent.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from evomerge.errors import ResultsError
from evomerge.store.database import connect, connect_to_read, damaged, trouble
from evomerge.store.folder import BACKUP

SCHEMA_VERSION = 8
"""Of the table and its contents, in SQLite's `user_version`. A database of another version is refused."""

TABLE = "evomerge_events"
ARRAYS = "evomerge_arrays"
_CREATE = f"""
CREATE TABLE {TABLE} (
    seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, content BLOB NOT NULL
);
CREATE TABLE {ARRAYS} (key TEXT PRIMARY KEY, content BLOB NOT NULL);
CREATE INDEX {TABLE}_by_kind ON {TABLE} (kind, key);
PRAGMA user_version = {SCHEMA_VERSION};
PRAGMA journal_mode = WAL;
"""
_FAST = 1  # zlib's level: half the time of the default, for a tenth more bytes


class Event(NamedTuple):
    """One row.

    Attributes:
        seq: Its place in the order of all events.
        kind: What happened, such as `asked`.
        key: To what, such as `trial:17`; empty where there is one of its kind.
        content: JSON values.
    """

    seq: int
    kind: str
    key: str
    content: dict[str, Any]


class EventLog:
    """The events of one open database.

    Attributes:
        arrays: Bytes by key, beside them.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path, self.connection = path, connection
        self.arrays = ArrayTable(self)

    @classmethod
    def open(cls, path: Path, *, write: bool) -> EventLog:
        """Open a database and check it, every page if it is to be written to.

        Raises:
            ResultsError: It is damaged, cannot be read, is not ours, or of another version.
        """
        with ExitStack() as undo:
            try:
                connection = connect(path, "rw") if write else connect_to_read(path)
                undo.callback(connection.close)
                _check(connection, path, thorough=write)
            except sqlite3.DatabaseError as error:
                raise trouble(error, path) from None
            undo.pop_all()
        return cls(path, connection)

    @classmethod
    def create(cls, path: Path, content: Mapping[str, Any]) -> None:
        """Create the table, with a first event `begun`, and turn the file to WAL mode, in which it stays.

        Raises:
            EvomergeError: The disk is full, or the file cannot be written.
        """
        try:
            with closing(connect(path, "rwc")) as connection:
                connection.executescript(_CREATE)
                cls(path, connection).append("begun", content)
        except sqlite3.DatabaseError as error:
            raise trouble(error, path) from None

    @property
    def is_open(self) -> bool:
        """Whether a transaction is open."""
        return self.connection.in_transaction

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Do all of the block or nothing, on the disk before it is left; inside another one, with that.

        Raises:
            EvomergeError: The disk is full, or the file cannot be written.
            ResultsError: The file is damaged.
        """
        if self.is_open:
            yield self.connection
            return
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            yield self.connection
            self.connection.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            raise trouble(error, self.path) from None
        finally:
            if self.connection.in_transaction:  # nothing was committed
                self.connection.execute("ROLLBACK")

    def append(self, kind: str, content: Mapping[str, Any], key: str = "") -> None:
        """Append an event, in the open transaction or one of its own; `Event` says what is what."""
        text = json.dumps(content, separators=(",", ":"))
        row = (kind, key, zlib.compress(text.encode(), _FAST))
        with self.transaction() as connection:
            connection.execute(f"INSERT INTO {TABLE} (kind, key, content) VALUES (?, ?, ?)", row)

    def read(self, *kinds: str, key: str | None = None) -> Iterator[Event]:
        """Give the events of some kinds (and one key) in their order."""
        places = ", ".join("?" * len(kinds))
        query = f"SELECT seq, kind, key, content FROM {TABLE} WHERE kind IN ({places})"
        values = kinds if key is None else (*kinds, key)
        query += " ORDER BY seq" if key is None else " AND key = ? ORDER BY seq"
        try:
            for seq, kind, found, packed in self.connection.execute(query, values).fetchall():
                yield Event(seq, kind, found, json.loads(zlib.decompress(packed)))
        except (sqlite3.DatabaseError, zlib.error) as error:
            raise trouble(error, self.path) from None

    def has(self, kind: str, key: str) -> bool:
        """Tell whether there is such an event."""
        query = f"SELECT 1 FROM {TABLE} WHERE kind = ? AND key = ? LIMIT 1"
        return self.connection.execute(query, (kind, key)).fetchone() is not None


class ArrayTable:
    """Bytes by key, each stored once; in the open transaction or one of their own, as events are."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def keep(self, key: str, content: bytes) -> None:
        """Store bytes, in the place of earlier ones of this key."""
        query = f"INSERT OR REPLACE INTO {ARRAYS} (key, content) VALUES (?, ?)"
        with self._log.transaction() as connection:
            connection.execute(query, (key, content))

    def has(self, key: str) -> bool:
        """Tell whether anything is under a key."""
        query = f"SELECT 1 FROM {ARRAYS} WHERE key = ?"
        return self._log.connection.execute(query, (key,)).fetchone() is not None

    def get(self, key: str) -> bytes:
        """Return what is under a key, also after the file was closed.

        Raises:
            ResultsError: Nothing is.
        """
        query, path = f"SELECT content FROM {ARRAYS} WHERE key = ?", self._log.path
        try:
            found = self._log.connection.execute(query, (key,)).fetchone()
        except sqlite3.ProgrammingError:  # closed
            with closing(connect_to_read(path)) as connection:
                found = connection.execute(query, (key,)).fetchone()
        except sqlite3.DatabaseError as error:
            raise trouble(error, path) from None
        if found is None:
            raise damaged(f"an array is gone ({key})", path)
        return bytes(found[0])

    def beginning(self, prefix: str) -> dict[str, bytes]:
        """Return what is under the keys that begin so, by the rest of each key."""
        query = f"SELECT key, content FROM {ARRAYS} WHERE substr(key, 1, ?) = ? ORDER BY key"
        found = self._log.connection.execute(query, (len(prefix), prefix)).fetchall()
        return {key.removeprefix(prefix): bytes(content) for key, content in found}


def _check(connection: sqlite3.Connection, path: Path, *, thorough: bool) -> None:
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if not any(name.startswith("evomerge_") for name in names):
        if path.with_name(BACKUP).exists():
            raise damaged("its tables are gone", path)
        raise ResultsError("holds no campaign of evomerge", file=path)
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found > SCHEMA_VERSION:
        raise ResultsError(
            f"was written by a newer evomerge (schema {found}, this one reads {SCHEMA_VERSION}); "
            "update evomerge",
            file=path,
        )
    if found < SCHEMA_VERSION:
        raise ResultsError(
            f"was written by an earlier evomerge (this one reads schema {SCHEMA_VERSION}); finish "
            "it with that one, or search again with --force",
            file=path,
        )
    if thorough:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise damaged(verdict, path)
