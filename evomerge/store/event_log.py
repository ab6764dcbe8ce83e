"""Transactions of one open database, and the places of events in their order."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, func, select

from evomerge.store.database import plain, transaction
from evomerge.store.tables import BASELINES, GRADIENT_STEPS, TRIALS


class EventLog:
    """Write in a transaction of its own, or in the one that is open around it.

    Attributes:
        is_open: Whether a transaction is open.

    Args:
        engine: The opened database.
        path: Its name, for messages.
        undo: Called after a transaction that failed, such as to forget what it would have written.
    """

    def __init__(self, engine: Engine, path: Path, undo: Sequence[Callable[[], None]]) -> None:
        self._engine, self._path, self._undo = engine, path, undo
        self._connection: Connection | None = None
        with self.transaction() as connection:
            latest = [TRIALS.c.asked_seq, TRIALS.c.told_seq, BASELINES.c.seq]
            latest += [GRADIENT_STEPS.c.asked_seq, GRADIENT_STEPS.c.told_seq]
            used = [connection.execute(select(func.max(column))).scalar() for column in latest]
        self._next_seq = 1 + max((seq for seq in used if seq is not None), default=-1)

    @property
    def is_open(self) -> bool:
        """Whether a transaction is open."""
        return self._connection is not None

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Do all of the block or nothing, on the disk before it is left; inside another one, with that.

        Raises:
            EvomergeError: The disk is full, or the file cannot be written or read.
            ResultsError: The file is damaged.
        """
        if self._connection is not None:
            yield self._connection
            return
        with ExitStack() as stack:
            for undo in self._undo:
                stack.callback(undo)
            with transaction(self._engine, self._path) as connection:
                self._connection = connection
                try:
                    yield connection
                finally:
                    self._connection = None
            stack.pop_all()

    @contextmanager
    def events(self) -> Iterator[tuple[sqlite3.Connection, Callable[[], int]]]:
        """Open a `transaction`, and give the next places; they count only once it is on the disk."""
        with ExitStack() as stack:
            if not self.is_open:
                stack.callback(self._go_back, self._next_seq)
            with self.transaction() as connection:
                yield plain(connection), self._take_seq
            stack.pop_all()

    def _go_back(self, seq: int) -> None:
        self._next_seq = seq

    def _take_seq(self) -> int:
        self._next_seq += 1
        return self._next_seq - 1
