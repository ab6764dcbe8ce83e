"""Folders of this process under the system's temporary folder; those of dead processes are removed.

A process that is killed cannot clean up. It holds a lock in its folder, which the system lets go when the
process dies: so the next one can tell, from another container that shares the folder, too.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX = "evomerge-"
OWNER = ".owner"
SECONDS_TO_LOCK = 60.0
"""A folder that is younger is left alone: it may be about to be locked."""


class ScratchFolder:
    """A new folder of this process, made after those of dead processes are removed.

    Attributes:
        path: The folder.

    Args:
        parent: Where; the system's temporary folder.
    """

    def __init__(self, parent: Path) -> None:
        remove_stale(parent)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        self._lock = FileLock(self.path / OWNER)
        self._lock.acquire()

    def remove(self) -> None:
        """Remove the folder; harmless when called again."""
        self._lock.release()
        shutil.rmtree(self.path, ignore_errors=True)


def remove_stale(parent: Path) -> None:
    """Remove what `ScratchFolder` made for processes of this user that are gone."""
    for folder in parent.glob(f"{PREFIX}*"):
        owner = folder / OWNER
        if folder.is_symlink() or not owner.is_file():
            continue
        status = folder.stat()
        young = time.time() - status.st_mtime < SECONDS_TO_LOCK
        if status.st_uid == os.getuid() and not young and not _is_held(owner):
            shutil.rmtree(folder, ignore_errors=True)


def _is_held(owner: Path) -> bool:
    lock = FileLock(owner)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
