"""Copies of the study database, for the day on which a disk damages it.

A copy is SQLite's own (a damaged page or a half-written one never gets into it by copying bytes while
they change), put in its place when it is whole. Copies are made now and then, at little cost.
"""

from __future__ import annotations

import logging
import shlex
import sqlite3
import time
from contextlib import ExitStack, closing
from pathlib import Path

from evomerge.store.folder import BACKUP, DATABASE, UNFINISHED_BACKUP, rename_whole

SHARE_OF_TIME = 0.01
"""Most of a campaign's time that goes into copies."""
SHARE_OF_TRIALS = 0.05
"""A copy is due after this share of the budget."""
SECONDS = 300.0
"""A copy is due after so long in any case."""

_LOG = logging.getLogger(__name__)


class Backups:
    """When to copy, and copying.

    Args:
        folder: The results folder.
        trials: Budget of the campaign.
    """

    def __init__(self, folder: Path, trials: int) -> None:
        self._folder, self._trials = folder, trials
        self._told = 0
        self._ended, self._took = time.monotonic(), 0.0
        self._never = not (folder / BACKUP).exists()

    def due(self, told: int) -> bool:
        """Return whether it is time for a copy; the first one is due when anything was told.

        Args:
            told: How many trials were told since the last call.
        """
        self._told += told
        if self._never:
            return True
        since = time.monotonic() - self._ended
        if since < self._took / SHARE_OF_TIME:
            return False
        return since >= SECONDS or self._told >= SHARE_OF_TRIALS * self._trials

    def write(self, connection: sqlite3.Connection) -> None:
        """Copy the database; where there is no room for another copy, the last one stays.

        Args:
            connection: To the database, without an open transaction.
        """
        start = time.monotonic()
        aside = self._folder / UNFINISHED_BACKUP
        with ExitStack() as undo:
            undo.callback(aside.unlink, missing_ok=True)
            aside.unlink(missing_ok=True)
            try:
                with closing(sqlite3.connect(aside)) as copy:
                    copy.execute(
                        "PRAGMA synchronous=OFF"
                    )  # synced as a whole, before it is renamed
                    connection.backup(copy)
                rename_whole(aside, self._folder / BACKUP)
            except (OSError, sqlite3.OperationalError) as error:
                _LOG.info("%s: not brought up to date: %s", self._folder / BACKUP, error)
        self._told, self._never = 0, False
        self._ended = time.monotonic()
        self._took = self._ended - start


def how_to_restore(database: Path) -> str:
    """Return what to do about a damaged database: a command that restores its last good copy.

    Args:
        database: `study.db` of a results folder.
    """
    backup = database.with_name(BACKUP)
    if database.name != DATABASE or not backup.exists():
        return "there is no backup of it: restore it from a copy, or start again with --force"
    taken = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(backup.stat().st_mtime))
    old = " ".join(shlex.quote(f"{database}{suffix}") for suffix in ("-wal", "-shm"))
    new = f"{shlex.quote(str(backup))} {shlex.quote(str(database))}"
    folder = shlex.quote(str(database.parent))
    return (
        f"restore its backup of {taken} and go on from there with: rm -f {old} && cp {new} && "
        f"evomerge resume {folder}"
    )
