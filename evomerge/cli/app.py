"""The program `evomerge`: its commands, and what ends with which exit status."""

from __future__ import annotations

import sys

import typer
from typer.exceptions import Abort, TyperException

from evomerge.cli import campaigns, models, reports, zoo
from evomerge.errors import EvomergeError, Interrupted, UserError

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

for command in (
    campaigns.init,
    campaigns.check,
    campaigns.search,
    campaigns.resume,
    reports.report,
    reports.compare,
    models.merge,
    models.score,
    campaigns.schema,
):
    app.command()(command)
zoo_app.command()(zoo.build)


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
