"""Commands on ensembles: serve one; make adapters of its members; let an expert join or leave."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.cli.options import DisplayOption, ResultsDir, in_color
from evomerge.errors import UserError

if TYPE_CHECKING:
    from evomerge.membership import MembershipChange

EXTRA = "needs a web server; install it with: pip install 'evomerge[serve]'"


def serve(
    ensemble: Annotated[
        Path, typer.Argument(metavar="DIR", help="A saved ensemble, such as results/NAME/best.")
    ],
    upstream: Annotated[
        list[str],
        typer.Option(
            metavar="[NAME=]URL",
            help="Server of all members, or of the member NAME; may be given several times.",
        ),
    ],
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 8080,
    served: Annotated[
        list[str],
        typer.Option(
            "--map",
            metavar="NAME=MODEL",
            help="What its server calls a member; may be given several times.",
        ),
    ] = [],  # noqa: B006 - typer's form of an option that may be given several times
    name: Annotated[
        str | None, typer.Option(help="What clients call the ensemble; default: DIR's name.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where the base reads prompts.")] = "cpu",
    trust_remote_code: Annotated[bool, typer.Option(help="Let models run their code.")] = False,
) -> None:
    """Send each request of the OpenAI API to the member that answers it best.

    Clients ask for the model NAME at http://HOST:PORT/v1; servers such as vLLM answer. Prompts are never
    written anywhere.
    """
    try:
        from evomerge.combine.serving import serve as run
    except ModuleNotFoundError as error:
        if error.name not in ("anyio", "httpx2", "starlette", "uvicorn"):
            raise
        raise UserError(EXTRA) from None
    run(
        ensemble,
        upstream,
        host=host,
        port=port,
        served=served,
        name=name,
        device=device,
        trust_remote_code=trust_remote_code,
    )


def adapters(
    results: ResultsDir,
    out: Annotated[Path, typer.Argument(metavar="OUT_DIR", help="Folder of the ensemble made.")],
    rank: Annotated[int, typer.Option(min=1, help="Of the adapters.")],
    device: Annotated[str, typer.Option(help="Where to compute.")] = "cpu",
) -> None:
    """Turn an ensemble's full models into LoRA adapters of the base, and say what that loses."""
    from evomerge import api
    from evomerge.report.formats import table
    from evomerge.report.grid import Report

    made = api.adapters(results, out, rank=rank, device=device)
    print(table.write(Report((made.grid(),), (), None), color=in_color()), end="")
    print(f"saved the ensemble to {out}")


def add(
    results: ResultsDir,
    expert: Annotated[
        str, typer.Argument(metavar="EXPERT", help="Folder, Hub id, zoo:NAME or a LoRA adapter.")
    ],
    name: Annotated[
        str | None, typer.Option(help="What reports call it; default: the last part of EXPERT.")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="A task that it brings, on which all members are scored, too."),
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="Of that task; default: that of the first objective.")
    ] = None,
    display: DisplayOption = "auto",
) -> None:
    """Let an expert join a finished campaign: score it, choose the winner again, save it."""
    from evomerge import api

    change = api.add(results, expert, name=name, task=task, metric=metric, display=display)
    _print_change(change, results)


def remove(
    results: ResultsDir,
    expert: Annotated[str, typer.Argument(metavar="EXPERT", help="Its name in reports.")],
    display: DisplayOption = "auto",
) -> None:
    """Let an expert leave a finished campaign: choose the winner again without it, save it."""
    from evomerge import api

    _print_change(api.remove(results, expert, display=display), results)


def _print_change(change: MembershipChange, results: Path) -> None:
    from evomerge.report.formats import table
    from evomerge.report.grid import Report

    print(table.write(Report((change.grid(),), (), None), color=in_color()), end="")
    print(f"best model: {results / 'best'}")
