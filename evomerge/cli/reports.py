"""Commands on results folders: leaderboards, one or several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evomerge.cli.options import FormatOption, ResultsDir, SplitOption, in_color


def report(
    results: ResultsDir,
    format_: FormatOption = "table",
    split: SplitOption = None,
) -> None:
    """Show the leaderboard of a finished or running campaign."""
    import evomerge.report as reports
    from evomerge.store import Store

    with Store.open(results, write=False) as store:
        board = reports.leaderboard(store)
    print(reports.render(board, format_, split, color=in_color()), end="")


def compare(
    results: Annotated[
        list[Path], typer.Argument(metavar="DIR DIR...", help="Two or more results folders.")
    ],
    format_: FormatOption = "table",
    split: SplitOption = None,
) -> None:
    """Compare the leaderboards of campaigns."""
    import evomerge.report as reports

    print(reports.compare_folders(results, format_, split), end="")
