"""The results folder: who may write to it, and files in it that are whole or absent."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
from contextlib import ExitStack
from pathlib import Path

from filelock import FileLock, Timeout

from evomerge.candidate.recipe import STATISTICS
from evomerge.config.destination import refuse_unwritable
from evomerge.errors import EvomergeError, ResultsError
from evomerge.merge.user_methods import FILE as METHODS_FILE

DATABASE = "study.db"
CAMPAIGN = "campaign.yaml"
LOCK = ".lock"
OWNER = ".lock.owner"
UNFINISHED = f".{DATABASE}.new"
BACKUP = "study.backup.db"
TASKS = "tasks"
"""Tasks that a campaign made of prompts, with their teachers' answers."""
TASKS_CODE = "teacher_task.py"
"""Written first: by it such a folder is told from one of the user's."""
ROOM = 2**18
"""Bytes; what SQLite asks for at once is less."""
UNFINISHED_BACKUP = f".{BACKUP}.new"

_SUFFIXES = ("", "-wal", "-shm", "-journal")
REPORTS = (
    *("leaderboard.json", "leaderboard.md", "front.json", "report.html"),
    *("explanation.json", "explanation.md"),
)
MODEL = "best"
LOGGERS = "loggers"
"""What loggers write, unless they are told to write elsewhere."""
_OURS = (
    *(BACKUP, UNFINISHED_BACKUP, f"{UNFINISHED_BACKUP}-journal"),
    *(f"{name}{suffix}" for name in (DATABASE, UNFINISHED) for suffix in _SUFFIXES),
    *(
        name
        for file in (CAMPAIGN, METHODS_FILE, STATISTICS, *REPORTS)
        for name in (file, f".{file}.new")
    ),
    *(MODEL, LOGGERS),
)
_LEFT_BY_A_KILLED_CREATE = {LOCK, OWNER, f"{OWNER}.new", f".{CAMPAIGN}.new"} | {
    name for name in _OURS if name.startswith(UNFINISHED)
}
_THE_SAME_IF_LOCKED = {CAMPAIGN, METHODS_FILE}
"""Without a lock they are the user's own, who keeps them where the results shall be."""


def is_campaign(folder: Path) -> bool:
    """Return whether a campaign was begun in `folder`."""
    return (folder / DATABASE).exists()


def refuse_existing(folder: Path, *, force: bool) -> None:
    """Refuse a folder that a new campaign may not use; an empty one it may, a results folder by `force`.

    Raises:
        ResultsError: It is refused, or cannot be made.
    """
    refuse_unwritable(folder, ResultsError, advice="choose another folder with --out")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ResultsError("is a file; expected the path of a new folder", file=folder)
    found = list(folder.iterdir())
    names = {path.name for path in found if not _holds_answers(path)}
    if names - (_THE_SAME_IF_LOCKED if LOCK in names else set()) <= _LEFT_BY_A_KILLED_CREATE:
        return
    if is_campaign(folder):
        what = f"the results folder exists; go on with `evomerge resume {folder}`, "
    elif all(map(is_ours, found)):  # a leaderboard that was kept, without its study
        what = "the folder holds what is left of a campaign, without its study; "
    else:
        what = "the folder holds files that do not belong to a campaign; choose another --out"
        raise ResultsError(what, file=folder)
    if not force:
        raise ResultsError(f"{what}choose another --out, or replace it with --force", file=folder)


def clear(folder: Path) -> None:
    """Remove what campaigns write from a folder; anything else stays."""
    for path in list(folder.iterdir()):
        if path.name in (LOCK, OWNER) or not is_ours(path):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def keep_tasks(source: Path | None, folder: Path) -> None:
    """Copy tasks with teachers' answers, if there are any, into a results folder, durably.

    Raises:
        EvomergeError: The disk is full or not writable.
    """
    if source is None:
        return
    place = folder / TASKS
    try:
        place.mkdir()
        files = sorted(source.iterdir(), key=lambda file: (file.name != TASKS_CODE, file.name))
        for file in [file for file in files if file.is_file()]:
            shutil.copyfile(file, place / file.name)
            _sync(place / file.name)
        _sync(place)
    except OSError as error:
        raise unwritable(place, error) from None


class FolderLock:
    """The right to write to an existing folder: an OS lock, freed when its process dies.

    Raises:
        ResultsError: Another process holds it; the message names host and process.
    """

    def __init__(self, folder: Path) -> None:
        self._owner = folder / OWNER
        self._lock = FileLock(folder / LOCK, fallback_to_soft=False)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ResultsError(
                f"another process is writing to this folder ({self._held_by()}); wait until it ends, "
                "or stop it",
                file=folder,
            ) from None
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise unwritable(folder / LOCK, error) from None
            raise ResultsError(f"cannot be locked: {error}", file=folder) from None
        owner = {"host": socket.gethostname(), "pid": os.getpid()}
        with ExitStack() as undo:
            undo.callback(self._lock.release)
            write_whole(self._owner, json.dumps(owner))
            undo.pop_all()

    def release(self) -> None:
        """Let others write; harmless when called again."""
        if self._lock.is_locked:
            self._owner.unlink(missing_ok=True)
            self._lock.release()

    def _held_by(self) -> str:
        try:
            owner = json.loads(self._owner.read_text(encoding="utf-8"))
            return f"host {owner['host']}, process {owner['pid']}"
        except (OSError, ValueError, KeyError):
            return "host and process unknown"


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that it is never seen half-written: aside, fsync, rename.

    Raises:
        EvomergeError: The disk is full or not writable; the old file, if any, is untouched.
    """
    aside = path.with_name(f".{path.name.lstrip('.')}.new")
    try:
        aside.write_bytes(content.encode() if isinstance(content, str) else content)
        rename_whole(aside, path)
    except OSError as error:
        raise unwritable(path, error) from None


def rename_whole(aside: Path, path: Path) -> None:
    """Put a finished file in its place, durably.

    Raises:
        OSError: The disk is full or not writable; the old file, if any, is untouched.
    """
    _sync(aside)
    aside.replace(path)
    _sync(path.parent)


def is_full(folder: Path) -> bool:
    """Return whether the folder's file system has less than `ROOM` left."""
    return shutil.disk_usage(folder).free < ROOM


def unwritable(path: Path, error: OSError) -> EvomergeError:
    """Return what to tell the user of a file that the disk does not take."""
    return EvomergeError(f"{path}: cannot be written: {error.strerror or error}")


def is_ours(path: Path) -> bool:
    """Tell whether a campaign writes that file; a model is first saved beside `best`."""
    name = path.name
    by_name = name in _OURS or name in _LEFT_BY_A_KILLED_CREATE or name.startswith(f".{MODEL}.")
    return by_name or _holds_answers(path)


def _holds_answers(path: Path) -> bool:
    return path.name == TASKS and (path / TASKS_CODE).is_file()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
