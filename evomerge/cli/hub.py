"""The commands that share a model, or copy results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from evomerge.cli.options import DisplayOption, ResultsDir


def push(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A results folder, or that of a saved model.")
    ],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="On the Hub: USER/NAME, or NAME.")],
    private: Annotated[bool, typer.Option("--private", help="If it is made: not public.")] = False,
) -> None:
    """Upload the best model of a campaign, or a saved one, with its card to the Hub."""
    from evomerge import api

    print(api.push(folder, repo, private=private))


def export(
    folder: ResultsDir,
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help="Such as s3://BUCKET/NAME, gs://..., az://..., hf://... or file://...",
        ),
    ],
    only: Annotated[
        Literal["best", "report", "all"],
        typer.Option(help="The saved model, the leaderboard's files, or everything."),
    ] = "all",
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that differ.")] = False,
    display: DisplayOption = "auto",
) -> None:
    """Copy a finished or running campaign's results to an object store; nothing is deleted there."""
    from contextlib import closing

    from evomerge import api
    from evomerge.progress import open_display

    with closing(open_display(display)) as shown:
        done = api.export(folder, url, only=only, force=force, display=shown)
    print(f"{url}: {len(done.copied)} files copied, {len(done.skipped)} were there")
