"""Commands on ensembles: serve one; let an expert join or leave."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evomerge.errors import UserError

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
    run(ensemble, upstream, host=host, port=port, served=served, name=name, device=device)
