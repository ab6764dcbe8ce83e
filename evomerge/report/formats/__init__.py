"""Formats of reports: a file each. Another one is a function, and a line here or an entry point elsewhere."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Protocol

from evomerge.candidate.trial import SPLITS, Split
from evomerge.errors import UserError, nearest
from evomerge.report.formats import csv, html, json, markdown, table
from evomerge.report.grid import Report
from evomerge.report.layout import leaderboard_report
from evomerge.report.leaderboard import Leaderboard


class Format(Protocol):
    """Writes a report as text that ends in a newline; it computes nothing, and escapes all text.

    `width` is the terminal's (None: find out), `color` whether it takes ANSI styles; files ignore both.
    """

    def __call__(self, report: Report, *, width: int | None, color: bool) -> str:
        """Return the text."""


FORMATS: dict[str, Format] = {
    "table": table.write,
    "markdown": markdown.write,
    "json": json.write,
    "csv": csv.write,
    "html": html.write,
}
FORMATS |= {point.name: point.load() for point in entry_points(group="evomerge.formats")}


def named(format: str) -> Format:
    """Return the format of that name. Raises UserError: there is none."""
    if format not in FORMATS:
        raise UserError(f'unknown format "{format}"; {nearest(format, FORMATS)}', field="--format")
    return FORMATS[format]


def write(
    report: Report, format: str = "table", *, width: int | None = None, color: bool = False
) -> str:
    """Write a report in a format of `FORMATS`; `width` and `color` are of `table`.

    Raises:
        UserError: An unknown format.
    """
    return named(format)(report, width=width, color=color)


def render(
    leaderboard: Leaderboard,
    format: str = "table",
    split: Split | None = None,
    *,
    width: int | None = None,
    color: bool = False,
) -> str:
    """Write a leaderboard.

    Args:
        leaderboard: What to write.
        format: A key of `FORMATS`; `json` holds all splits.
        split: Which items; default the last of search, select, holdout that has scores.
        width: Columns of a table; default the terminal's, else 100.
        color: Whether a table has ANSI styles.

    Raises:
        UserError: An unknown format or split.
    """
    if split is not None and split not in SPLITS:
        raise UserError(f'unknown split "{split}"; {nearest(split, SPLITS)}', field="--split")
    return write(leaderboard_report(leaderboard, split), format, width=width, color=color)
