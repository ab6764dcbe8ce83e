"""Arguments and options that several commands take."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

SplitName = Literal["search", "select", "holdout"]
DisplayStyle = Literal["auto", "rich", "plain", "json", "none"]

CampaignFile = Annotated[Path, typer.Argument(metavar="CAMPAIGN.yaml", help="The campaign file.")]
ResultsDir = Annotated[Path, typer.Argument(metavar="DIR", help="A results folder.")]
FormatOption = Annotated[
    str, typer.Option("--format", metavar="table|markdown|json|csv|html", help="How to write it.")
]
SplitOption = Annotated[
    SplitName | None, typer.Option(help="Which items; default: the last ones that were scored.")
]
DisplayOption = Annotated[
    DisplayStyle, typer.Option(help="Progress; auto: rich on a terminal, plain lines elsewhere.")
]
TrialsOption = Annotated[int | None, typer.Option(min=1, help="Budget of trials.")]
WorkersOption = Annotated[
    int | None, typer.Option(min=0, help="Number of workers; 0: in this process.")
]


def names(text: str) -> list[str]:
    """Return the names in a comma-separated list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def in_color() -> bool:
    """Return whether stdout is a terminal that may show colours."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
