"""The program `evomerge`: its commands, and what ends with which exit status."""

from __future__ import annotations

import errno
import sys
from typing import Annotated

import typer
from typer.exceptions import Abort, TyperException

from evomerge import __version__
from evomerge.cli import campaigns, ensembles, explanations, hub, models, reports, zoo
from evomerge.errors import EvomergeError, Interrupted, UserError


def _version(asked: bool) -> None:
    if asked:
        print(f"evomerge {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="evomerge",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
zoo_app = typer.Typer(
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
    explanations.explain,
    models.merge,
    models.score,
    ensembles.add,
    ensembles.remove,
    ensembles.adapters,
    ensembles.serve,
    hub.push,
    hub.export,
    campaigns.schema,
):
    app.command()(command)
zoo_app.callback(invoke_without_command=True)(zoo.models)
zoo_app.command()(zoo.build)

_WRONG_PATH = {
    *(errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP),
}
"""What the system says of a path that somebody named wrongly; all else (a full disk, …) is a failure."""


@app.callback()
def evomerge(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Search for the best way to merge fine-tuned language models."""


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
        status = 2 if error.errno in _WRONG_PATH else 1
        return _fail(f"{error.filename or 'system'}: {error.strerror or error}", status)
    return int(status or 0)


def _fail(message: str, status: int) -> int:
    print(f"evomerge: {message}", file=sys.stderr)
    return status
