"""Comparison of results folders: their stores opened for reading, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evomerge.candidate.trial import Split
from evomerge.report.leaderboard import leaderboard
from evomerge.report.render import Format, compare
from evomerge.store import Store


def compare_folders(
    folders: Sequence[Path],
    format: Format = "table",
    split: Split | None = None,
    *,
    width: int | None = None,
    color: bool = False,
) -> str:
    """Compare the campaigns of several results folders; arguments and errors as in `render.compare`.

    Raises:
        ResultsError: A folder holds no campaign, or the campaigns cannot be compared.
    """
    boards = []
    for folder in folders:
        with Store.open(folder, write=False) as store:
            boards.append(leaderboard(store))
    labels = [str(folder) for folder in folders]
    return compare(boards, format, split, labels=labels, width=width, color=color)
