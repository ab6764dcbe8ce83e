"""A page on disk that follows a study: written again whenever the study changes, until it is finished."""

from __future__ import annotations

import time
from pathlib import Path

from evomerge.config.destination import refuse_unwritable
from evomerge.errors import Interrupted, UserError
from evomerge.report.page.study import report_page
from evomerge.store import Store
from evomerge.store.folder import DATABASE, write_whole

SECONDS = 2.0
"""Between looks at the study; a page that takes longer to write is written half of the time at most."""

_State = tuple[tuple[int, int], ...]


def write_report(folder: Path, file: Path, *, refresh: bool = False) -> bool:
    """Write the page of a study; the file is never seen half-written.

    Args:
        folder: The results folder.
        file: The page to be.
        refresh: The page loads itself again as long as the study is not finished.

    Returns:
        Whether the study is finished.

    Raises:
        ResultsError: The folder holds no campaign.
        UserError: The file cannot be written.
    """
    if file.is_dir():
        raise UserError("is a folder; expected the name of an HTML file", file=file)
    refuse_unwritable(file, advice="choose another --html")
    with Store.open(folder, write=False) as store:
        page = report_page(store, refresh=refresh and not store.finished)
        finished = store.finished
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, page)
    return finished


def follow_report(folder: Path, file: Path) -> None:
    """Write the page now and after every change, until the study is finished.

    However this ends, the page that stays no longer loads itself again.

    Raises:
        Interrupted: By Ctrl-C; and what `write_report` raises.
    """
    try:
        while True:
            seen, start = _state(folder), time.monotonic()
            if write_report(folder, file, refresh=True):
                return
            time.sleep(max(SECONDS, time.monotonic() - start))
            while _state(folder) == seen:
                time.sleep(SECONDS)
    except KeyboardInterrupt:
        write_report(folder, file)
        raise Interrupted(f"{file}: no longer follows the study; it shows its last state") from None


def _state(folder: Path) -> _State:
    """Return what tells one state of the database from another; an empty log is none."""
    found = []
    for name in (DATABASE, f"{DATABASE}-wal"):
        try:
            stat = (folder / name).stat()
        except FileNotFoundError:
            continue
        if stat.st_size:
            found.append((stat.st_size, stat.st_mtime_ns))
    return tuple(found)
