"""The append-only table of events in `study.db`: all that a campaign did, in its order; arrays beside it.

Rows are written once and never changed; a campaign's state is read from them in order. The content of an
event is JSON, compressed: Python writes and reads every float exactly, NaN included. Per-item values stand
apart in the row, so that a study is read without them. Arrays are bytes by key, each stored once: those of
candidates by their digest, and the present state of each descent.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from evomerge.errors import ResultsError
from evomerge.store.database import connect, connect_to_read, damaged, trouble
from evomerge.store.encoding import Values, values_from_json
from evomerge.store.folder import BACKUP

SCHEMA_VERSION = 9
"""Of the table and its contents, in SQLite's `user_version`. A database of another version is refused."""

TABLE = "evomerge_events"
ARRAYS = "evomerge_arrays"
_CREATE = f"""
CREATE TABLE {TABLE} (
    seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, content BLOB NOT NULL, items BLOB
);
CREATE TABLE {ARRAYS} (key TEXT PRIMARY KEY, content BLOB NOT NULL);
CREATE INDEX {TABLE}_by_kind ON {TABLE} (kind, key);
PRAGMA user_version = {SCHEMA_VERSION};
PRAGMA journal_mode = WAL;
"""
_FAST = 1  # zlib's level: half the time of the default, for a tenth more bytes
_KEPT = 64
"""Outcomes whose per-item values are kept once they were read: rivals of races are read again and again."""


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
        items: Event → its per-item values, `encoding.Values`; those of some events are kept.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path, self.connection = path, connection
        self.arrays = ArrayTable(self)
        self.items = lru_cache(_KEPT)(self._items)

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

    def append(
        self,
        kind: str,
        content: Mapping[str, Any],
        key: str = "",
        items: Mapping[str, Any] | None = None,
    ) -> None:
        """Append an event, in the open transaction or one of its own; `Event` says what is what.

        Args:
            kind: What happened.
            content: JSON values.
            key: To what.
            items: JSON values of `values_to_json`, read by `items` only.
        """
        row = (kind, key, _packed(content), None if items is None else _packed(items))
        query = f"INSERT INTO {TABLE} (kind, key, content, items) VALUES (?, ?, ?, ?)"
        with self.transaction() as connection:
            connection.execute(query, row)

    def read(self, *kinds: str, key: str | None = None) -> Iterator[Event]:
        """Give the events of some kinds (and one key) in their order."""
        places = ", ".join("?" * len(kinds))
        query = f"SELECT seq, kind, key, content FROM {TABLE} WHERE kind IN ({places})"
        values = kinds if key is None else (*kinds, key)
        query += " ORDER BY seq" if key is None else " AND key = ? ORDER BY seq"
        try:
            rows = self.connection.execute(query, values).fetchall()[::-1]
            while rows:  # each is let go of once it is read
                seq, kind, found, packed = rows.pop()
                yield Event(seq, kind, found, _unpacked(packed))
        except (sqlite3.DatabaseError, zlib.error) as error:
            raise trouble(error, self.path) from None

    def fetch(self, query: str, key: str | int) -> bytes | None:
        """Return the one value of a query, also after the file was closed; None: there is none."""
        try:
            found = self.connection.execute(query, (key,)).fetchone()
        except sqlite3.ProgrammingError:  # closed
            with closing(connect_to_read(self.path)) as connection:
                found = connection.execute(query, (key,)).fetchone()
        except sqlite3.DatabaseError as error:
            raise trouble(error, self.path) from None
        return None if found is None else found[0]

    def has(self, kind: str, key: str) -> bool:
        """Tell whether there is such an event."""
        query = f"SELECT 1 FROM {TABLE} WHERE kind = ? AND key = ? LIMIT 1"
        return self.connection.execute(query, (kind, key)).fetchone() is not None

    def _items(self, seq: int) -> Values:
        """Read the per-item values of an event.

        Raises:
            ResultsError: They are gone, or damaged.
        """
        packed = self.fetch(f"SELECT items FROM {TABLE} WHERE seq = ?", seq)
        if packed is None:
            raise damaged(f"the items of event {seq} are gone", self.path)
        try:
            return values_from_json(_unpacked(packed))
        except zlib.error as error:
            raise trouble(error, self.path) from None


class ArrayTable:
    """Bytes by key, each stored once; in the open transaction or one of their own, as events are."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def keep(self, key: str, content: bytes) -> None:
        """Store bytes, in the place of earlier ones of this key."""
        query = f"INSERT OR REPLACE INTO {ARRAYS} (key, content) VALUES (?, ?)"
        with self._log.transaction() as connection:
            connection.execute(query, (key, content))

    def keep_all(self, arrays: Mapping[str, bytes]) -> None:
        """Store the arrays that are not there yet: digest → bytes."""
        for digest, content in arrays.items():
            if not self.has(digest):
                self.keep(digest, content)

    def has(self, key: str) -> bool:
        """Tell whether anything is under a key."""
        query = f"SELECT 1 FROM {ARRAYS} WHERE key = ?"
        return self._log.connection.execute(query, (key,)).fetchone() is not None

    def get(self, key: str) -> bytes:
        """Return what is under a key, also after the file was closed.

        Raises:
            ResultsError: Nothing is.
        """
        found = self._log.fetch(f"SELECT content FROM {ARRAYS} WHERE key = ?", key)
        if found is None:
            raise damaged(f"an array is gone ({key})", self._log.path)
        return bytes(found)

    def beginning(self, prefix: str) -> dict[str, bytes]:
        """Return what is under the keys that begin so, by the rest of each key."""
        query = f"SELECT key, content FROM {ARRAYS} WHERE substr(key, 1, ?) = ? ORDER BY key"
        found = self._log.connection.execute(query, (len(prefix), prefix)).fetchall()
        return {key.removeprefix(prefix): bytes(content) for key, content in found}


def _packed(content: Mapping[str, Any]) -> bytes:
    return zlib.compress(json.dumps(content, separators=(",", ":")).encode(), _FAST)


def _unpacked(packed: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(zlib.decompress(packed))
    return found


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
