"""Folders of this process under the system's temporary folder; those of dead processes are removed.

A process that is killed cannot clean up. The folder's name says whose it is, so that the next one can.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

PREFIX = "evomerge-"
_OWNED = re.compile(rf"{PREFIX}(\d+)-")


def own_folder(parent: Path) -> Path:
    """Make a new folder of this process, after removing those whose process is gone.

    Args:
        parent: Where; the system's temporary folder.
    """
    remove_stale(parent)
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=parent))


def remove_stale(parent: Path) -> None:
    """Remove folders that `own_folder` made for processes of this user that are gone."""
    for folder in parent.glob(f"{PREFIX}*"):
        owner = _OWNED.match(folder.name)
        if owner is None or folder.is_symlink() or not folder.is_dir():
            continue
        if folder.stat().st_uid == os.getuid() and not _alive(int(owner.group(1))):
            shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
