"""Commands on a campaign: write its file, check it, run it, go on with it."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.cli.options import (
    CampaignFile,
    DisplayOption,
    ResultsDir,
    TrialsOption,
    WorkersOption,
    in_color,
    names,
)
from evomerge.errors import Interrupted

if TYPE_CHECKING:
    from evomerge.result import Result


def init(
    base: Annotated[str, typer.Argument(metavar="BASE", help="Folder, Hub id or zoo:NAME.")],
    experts: Annotated[
        list[str], typer.Argument(metavar="EXPERT...", help="Models fine-tuned from the base.")
    ],
    tasks: Annotated[str, typer.Option(help="lm-eval tasks, comma-separated.")] = "",
    tasks_path: Annotated[
        Path | None, typer.Option(help="Folder of lm-eval task files of your own.")
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="Where to write it.")
    ] = Path("campaign.yaml"),
) -> None:
    """Write a commented campaign file for these models; asks nothing."""
    from evomerge.preflight import starter

    starter.write(output, base, experts, names(tasks), tasks_path)
    print(f"wrote {output}; next: evomerge check {output}")


def check(
    campaign_file: CampaignFile,
    print_: Annotated[
        bool, typer.Option("--print", help="Print the file with every default filled in.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Say what is wrong with a campaign, and what it will cost."""
    from evomerge import api
    from evomerge.config import Campaign

    plan = api.check(campaign_file)
    if print_:
        print(Campaign.load(campaign_file).to_yaml(), end="")
    elif as_json:
        print(json.dumps(plan.to_json()))
    else:
        from evomerge.preflight.description import describe

        print(describe(plan))


def search(
    campaign_file: CampaignFile,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The results folder.")] = None,
    force: Annotated[bool, typer.Option(help="Replace an existing results folder.")] = False,
    trials: TrialsOption = None,
    workers: WorkersOption = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the search.")] = None,
    address: Annotated[
        str | None, typer.Option(metavar="ADDR", help="A Ray cluster to join, such as auto.")
    ] = None,
    display: DisplayOption = "auto",
) -> None:
    """Search, save the best merged model and print the leaderboard."""
    from evomerge import api
    from evomerge.config import Campaign

    folder = Campaign.load(campaign_file).override(out=out).out
    with interruptible(f"evomerge resume {folder}"):
        result = api.search(
            campaign_file,
            out=out,
            force=force,
            trials=trials,
            workers=workers,
            seed=seed,
            address=address,
            display=display,
        )
    _print_result(result)


def resume(
    results: ResultsDir,
    trials: Annotated[int, typer.Option(min=0, help="Trials to add to the budget.")] = 0,
    workers: WorkersOption = None,
    address: Annotated[str | None, typer.Option(metavar="ADDR", help="A Ray cluster.")] = None,
    display: DisplayOption = "auto",
) -> None:
    """Go on where a campaign stopped."""
    from evomerge import api

    with interruptible(f"evomerge resume {results}"):
        result = api.resume(
            results, trials=trials, workers=workers, address=address, display=display
        )
    _print_result(result)


def schema() -> None:
    """Print the JSON schema of the campaign file, for editors."""
    from evomerge.preflight.schema import json_schema

    print(json.dumps(json_schema(), indent=2))


@contextmanager
def interruptible(how_to_go_on: str) -> Iterator[None]:
    """Make SIGTERM an interrupt too, and let the message of an interrupt say how to go on."""

    def interrupt(_signum: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; go on with: {how_to_go_on}") from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _print_result(result: Result) -> None:
    from evomerge.report.formats import render

    print(render(result.leaderboard, "table", "holdout", color=in_color()), end="")
    print(f"best model: {result.folder / 'best'}")
