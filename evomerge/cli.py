"""The command line: thin commands, lazy imports, one-line errors."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer.exceptions import Abort, TyperException

from evomerge.errors import EvomergeError, Interrupted, RecipeError, UserError

if TYPE_CHECKING:
    from evomerge.progress import Display
    from evomerge.run import Result

app = typer.Typer(
    name="evomerge",
    help="Search for the best way to merge fine-tuned language models.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
zoo_app = typer.Typer(
    help="The small family of models of the quickstart.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(zoo_app, name="zoo")


Format = Literal["table", "markdown", "json", "csv"]
SplitName = Literal["search", "select", "holdout"]
DisplayStyle = Literal["auto", "rich", "plain", "json", "none"]

CampaignFile = Annotated[Path, typer.Argument(metavar="CAMPAIGN.yaml", help="The campaign file.")]
ResultsDir = Annotated[Path, typer.Argument(metavar="DIR", help="A results folder.")]
FormatOption = Annotated[Format, typer.Option("--format", help="How to write it.")]
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


@app.command()
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
    from evomerge import starter

    names = [task.strip() for task in tasks.split(",") if task.strip()]
    starter.write(output, base, experts, names, tasks_path)
    print(f"wrote {output}; next: evomerge check {output}")


@app.command()
def check(
    campaign_file: CampaignFile,
    print_: Annotated[
        bool, typer.Option("--print", help="Print the file with every default filled in.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Say what is wrong with a campaign, and what it will cost."""
    from evomerge import check as checks
    from evomerge.campaign import Campaign
    from evomerge.warm_start import first_points

    campaign = Campaign.load(campaign_file)
    ready = checks.preflight(campaign, campaign_file)
    first_points(ready, campaign_file)
    plan = checks.plan(ready)
    if print_:
        print(campaign.to_yaml(), end="")
    elif as_json:
        print(json.dumps(plan.to_json()))
    else:
        print(checks.describe(plan))


@app.command()
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
    from evomerge import run
    from evomerge.campaign import Campaign

    campaign = Campaign.load(campaign_file).override(
        out=out, trials=trials, workers=workers, seed=seed
    )
    with _interruptible(f"evomerge resume {campaign.out}"), _shown(display) as shown:
        result = run.search(
            campaign, file=campaign_file, force=force, address=address, display=shown
        )
    _print_result(result)


@app.command()
def resume(
    results: ResultsDir,
    trials: Annotated[int, typer.Option(min=0, help="Trials to add to the budget.")] = 0,
    workers: WorkersOption = None,
    address: Annotated[str | None, typer.Option(metavar="ADDR", help="A Ray cluster.")] = None,
    display: DisplayOption = "auto",
) -> None:
    """Go on where a campaign stopped."""
    from evomerge import run

    with _interruptible(f"evomerge resume {results}"), _shown(display) as shown:
        result = run.resume(results, trials=trials, workers=workers, address=address, display=shown)
    _print_result(result)


@app.command()
def report(
    results: ResultsDir,
    format_: FormatOption = "table",
    split: SplitOption = None,
) -> None:
    """Show the leaderboard of a finished or running campaign."""
    from evomerge import report as reports
    from evomerge.store import Store

    with Store.open(results, write=False) as store:
        board = reports.leaderboard(store)
    print(reports.render(board, format_, split, color=_in_color()), end="")


@app.command()
def compare(
    results: Annotated[
        list[Path], typer.Argument(metavar="DIR DIR...", help="Two or more results folders.")
    ],
    format_: FormatOption = "table",
    split: SplitOption = None,
) -> None:
    """Compare the leaderboards of campaigns."""
    from evomerge import report as reports

    print(reports.compare_folders(results, format_, split), end="")


@app.command()
def merge(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE.yaml|DIR", help="A recipe, any mergekit file, or a results folder."
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT_DIR", help="Folder of the merged model.")],
    trial: Annotated[
        str | None,
        typer.Option(metavar="N", help="Of a results folder: which trial, or best: the winner."),
    ] = None,
    device: Annotated[str, typer.Option(help="Where to compute.")] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="Of the file, such as bfloat16.")] = None,
    trust_remote_code: Annotated[bool, typer.Option(help="Let models run their code.")] = False,
    allow_pickle: Annotated[bool, typer.Option(help="Accept PyTorch pickles.")] = False,
) -> None:
    """Build one merged model from a recipe, or from a trial of a campaign, and save it."""
    if trial is not None:
        from evomerge.materialise import materialise

        number = materialise(
            source,
            trial,
            out,
            device=device,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            allow_pickle=allow_pickle,
        )
        print(f"saved the merged model of trial {number} to {out}")
        return
    if source.is_dir():
        raise UserError("is a folder; say which trial: --trial N, or --trial best", file=source)

    from evomerge import merge as merging
    from evomerge import recipe

    loaded = recipe.load(source)
    try:
        merging.save(
            loaded,
            out,
            device=device,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            allow_pickle=allow_pickle,
        )
    except RecipeError as error:
        raise recipe.located(error, source) from error
    print(f"saved the merged model to {out}")


@app.command()
def score(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder, Hub id or zoo:NAME.")],
    tasks: Annotated[str, typer.Option(help="lm-eval tasks, comma-separated.")] = "",
    tasks_path: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of lm-eval task files.")
    ] = None,
    num_fewshot: Annotated[int | None, typer.Option(min=0, help="Examples in the prompt.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first items a task.")] = None,
    campaign: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Score on the items of this campaign.")
    ] = None,
    split: Annotated[SplitName, typer.Option(help="Which of its items.")] = "holdout",
    dtype: Annotated[str | None, typer.Option(help="Default: the campaign's, or float32.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Write results and items here.")
    ] = None,
    allow_unsafe_code: Annotated[
        bool, typer.Option(help="Let tasks run code that the model writes.")
    ] = False,
) -> None:
    """Score any model on lm-eval tasks, or on the very items of a campaign."""
    from evomerge import single

    if (campaign is None) == (not tasks):
        raise UserError("give either --tasks A,B or --campaign DIR")
    if campaign is not None:
        scores = single.score_on_campaign(model, campaign, split, dtype=dtype)
    else:
        scores = single.score_on_tasks(
            model,
            [task.strip() for task in tasks.split(",") if task.strip()],
            tasks_path=tasks_path,
            num_fewshot=num_fewshot,
            limit=limit,
            dtype=dtype or "float32",
            allow_unsafe_code=allow_unsafe_code,
        )
    print(single.table(scores), end="")
    if out is not None:
        single.write_json(scores, out)


@app.command()
def schema() -> None:
    """Print the JSON schema of the campaign file, for editors."""
    from evomerge.schema import json_schema

    print(json.dumps(json_schema(), indent=2))


@zoo_app.command("build")
def zoo_build(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to put it.")] = Path(
        "zoo"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Seed of data and training.")] = 0,
) -> None:
    """Train the family from nothing: a base and six specialists."""
    from evomerge import zoo

    zoo.build(directory, seed=seed)
    print(f"built the zoo in {directory}")


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong input, 130 interrupted."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Run one command and return its exit status; errors are one line on stderr."""
    command = typer.main.get_command(app)
    try:
        status = command.main(arguments or ["--help"], prog_name="evomerge", standalone_mode=False)
    except TyperException as error:
        return _fail(" ".join(error.format_message().split()), 2)
    except UserError as error:
        return _fail(str(error), 2)
    except Interrupted as error:
        return _fail(str(error), 130)
    except EvomergeError as error:
        return _fail(str(error), 1)
    except Abort:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        return 0
    except OSError as error:
        return _fail(f"{error.filename or 'system'}: {error.strerror or error}", 1)
    return int(status or 0)


def _fail(message: str, status: int) -> int:
    print(f"evomerge: {message}", file=sys.stderr)
    return status


@contextmanager
def _shown(style: DisplayStyle) -> Iterator[Display]:
    from evomerge.progress import open_display

    display = open_display(style)
    try:
        yield display
    finally:
        display.close()


@contextmanager
def _interruptible(how_to_go_on: str) -> Iterator[None]:
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
    from evomerge import report as reports

    print(reports.render(result.leaderboard, "table", "holdout", color=_in_color()), end="")
    print(f"best model: {result.folder / 'best'}")


def _in_color() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
