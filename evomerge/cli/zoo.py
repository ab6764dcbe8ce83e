"""Commands on the zoo, the small family of models of the quickstart."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def models(context: typer.Context) -> None:
    """List the small family of models of the quickstart, or train it again."""
    if context.invoked_subcommand is not None:
        return
    from evomerge import zoo

    width = max(map(len, zoo.NAMES))
    for name, about in zoo.ABOUT.items():
        print(f"zoo:{name:{width}}  {about}")


def build(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to put it.")] = Path(
        "zoo"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Seed of data and training.")] = 0,
) -> None:
    """Train the family from nothing: a base and seven specialists."""
    from evomerge import zoo

    zoo.build(directory, seed=seed)
    print(f"built the zoo in {directory}")
