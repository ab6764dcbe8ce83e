"""The command that shares a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


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
