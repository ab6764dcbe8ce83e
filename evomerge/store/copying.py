"""Which files of a results folder may be copied elsewhere, with a consistent copy of its database."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Literal

from evomerge.errors import ResultsError
from evomerge.store.database import connect_to_read
from evomerge.store.folder import BACKUP, DATABASE, MODEL, REPORTS, is_campaign, is_ours

Part = Literal["best", "report", "all"]


def files_to_copy(folder: Path, part: Part, aside: Path) -> dict[str, Path]:
    """Return the files of a part of a results folder by their names relative to it.

    Locks, what SQLite keeps beside a database, and files that are being written are left out.

    Args:
        folder: The results folder.
        part: `best`: the saved model; `report`: leaderboard, page, explanation; `all`: all files.
        aside: A folder for the copy of the database, which has the database's time.

    Raises:
        ResultsError: The folder holds no campaign, or nothing of that part yet.
    """
    if not is_campaign(folder):
        found = "holds no campaign" if folder.is_dir() else "no such folder"
        raise ResultsError(f"{found}; expected a results folder", file=folder)
    names = {"best": [MODEL], "report": list(REPORTS)}.get(part)
    if names is None:
        names = [path.name for path in folder.iterdir() if is_ours(path) and path.name != BACKUP]
    files = {
        path.relative_to(folder).as_posix(): path
        for name in sorted(names)
        for path in sorted([folder / name, *(folder / name).rglob("*")])
        if path.is_file() and not _is_passing(path.relative_to(folder))
    }
    if not files:
        advice = f"finish it with `evomerge resume {folder}`"
        raise ResultsError(f"holds no {part} yet; {advice}", file=folder)
    if DATABASE in files:
        files[DATABASE] = _copied(folder / DATABASE, aside / DATABASE)
    return files


def _is_passing(name: Path) -> bool:
    """Tell whether a file is a lock, half written, or SQLite's own."""
    return name.parts[0].startswith((".", f"{DATABASE}-"))


def _copied(path: Path, copy: Path) -> Path:
    with closing(connect_to_read(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    log = path.with_name(f"{path.name}-wal")
    times = [one.stat().st_mtime for one in (path, log) if one.exists()]
    os.utime(copy, (max(times), max(times)))
    return copy
