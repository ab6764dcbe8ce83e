"""Folders of this process on disk or in memory; those of dead processes are removed.

A process that is killed cannot clean up. It holds a lock in its folder, which the system lets go when the
process dies: so the next one can tell, from another container that shares the folder, too. A folder gets its
name once its lock is held.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX = "evomerge-"
OWNER = ".owner"
SHARED_MEMORY = Path("/dev/shm")


class ScratchFolder:
    """A new folder of this process, made after those of dead processes are removed.

    Attributes:
        path: The folder.

    Args:
        parent: Where, such as the system's temporary folder.
    """

    def __init__(self, parent: Path) -> None:
        remove_stale(parent)
        made = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=parent))
        self._lock = FileLock(made / OWNER)
        self._lock.acquire()
        self.path = made.rename(parent / made.name.removeprefix("."))

    def remove(self) -> None:
        """Remove the folder; harmless when called again."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()


@contextmanager
def in_memory() -> Iterator[Path]:
    """Make a folder for one candidate, in memory where the system has such a place; then remove it.

    Killed processes leave the models that they were scoring there, which take memory until the next
    candidate of any campaign on this machine is built.
    """
    offered = SHARED_MEMORY.is_dir() and os.access(SHARED_MEMORY, os.W_OK)
    scratch = ScratchFolder(SHARED_MEMORY if offered else Path(tempfile.gettempdir()))
    try:
        yield scratch.path
    finally:
        scratch.remove()


def remove_stale(parent: Path) -> None:
    """Remove what `ScratchFolder` made for processes of this user that are gone."""
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):  # others remove theirs meanwhile
            status = folder.lstat()
            if stat.S_ISLNK(status.st_mode) or status.st_uid != os.getuid():
                continue  # no right to look into it
            owner = folder / OWNER
            if owner.is_file() and not _is_held(owner):
                shutil.rmtree(folder, ignore_errors=True)


def _is_held(owner: Path) -> bool:
    lock = FileLock(owner)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
