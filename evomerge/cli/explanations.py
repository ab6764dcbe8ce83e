"""The command that explains a winner."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evomerge.cli.campaigns import interruptible
from evomerge.cli.options import (
    DisplayOption,
    FormatOption,
    ResultsDir,
    WorkersOption,
    in_color,
)
from evomerge.config.destination import refuse_unwritable
from evomerge.errors import UserError


def explain(
    results: ResultsDir,
    format_: FormatOption = "table",
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page, too.")
    ] = None,
    workers: WorkersOption = None,
    random: Annotated[
        bool, typer.Option("--random", help="Score random task vectors of the same norms, too.")
    ] = False,
    display: DisplayOption = "auto",
) -> None:
    """Say why the winner works: what each expert and group of layers adds, and where experts conflict."""
    from evomerge import api
    from evomerge.explanation.layout import text
    from evomerge.report.formats import named

    named(format_)  # mistakes are found before anything is scored
    if html is not None:
        if html.is_dir():
            raise UserError("is a folder; expected the name of an HTML file", file=html)
        refuse_unwritable(html, advice="choose another --html")
    with interruptible(f"evomerge explain {results}"):
        found = api.explain(results, workers=workers, random=random, display=display)
    if html is not None:
        from evomerge.explanation.page import explanation_page
        from evomerge.store.folder import write_whole

        html.parent.mkdir(parents=True, exist_ok=True)
        write_whole(html, explanation_page(found))
    print(text(found, format_, color=in_color()), end="")
