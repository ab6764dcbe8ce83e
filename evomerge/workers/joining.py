"""Whether a Ray cluster answers at an address, found out where Ray may hang, and print, as it likes.

Ray goes on trying for many minutes, and its C++ side writes to stderr meanwhile.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

from evomerge.errors import UserError

SECONDS_TO_ANSWER = 5.0
SECONDS_TO_JOIN = 25.0
"""Ray takes two on an idle machine."""

_AUTO = "auto"
_ADDRESS = re.compile(r"(ray://)?(\[[0-9a-fA-F:]+\]|[^\s:/]+):(\d{1,5})")
_ADVICE = "start one with `ray start --head`, or leave --address out"
_PROBE = (
    "import sys, ray; "
    "ray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR'); "
    "print('joined', '' if ray.util.client.ray.is_connected() else "
    "ray.get_runtime_context().gcs_address)"
)


def check_address(address: str) -> None:
    """Refuse at once what cannot be a cluster's address, or where nothing listens.

    Raises:
        UserError: Saying what is expected.
    """
    if address == _AUTO:
        return
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise UserError(
            f'found "{address}", expected auto, HOST:PORT or ray://HOST:PORT', field="--address"
        )
    try:
        place = (found[2].strip("[]"), int(found[3]))
        socket.create_connection(place, SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"no Ray cluster answers at {address} ({reason}); {_ADVICE}", field="--address"
        ) from None


def check_joinable(address: str) -> str:
    """Join a cluster from another process, and leave it.

    Args:
        address: `auto`, `HOST:PORT` or `ray://HOST:PORT`.

    Returns:
        The address to join, where `auto` found one.

    Raises:
        UserError: No cluster answers there, or it asks for a token that is not here.
    """
    check_address(address)
    command = [sys.executable, "-c", _PROBE, address]
    try:
        done = subprocess.run(
            command,
            env=joining_environment() | os.environ,
            capture_output=True,
            text=True,
            timeout=SECONDS_TO_JOIN,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        said, reason = _text(error.stderr), f"nothing in {SECONDS_TO_JOIN:g} s"
    else:
        joined = re.search(r"^joined (\S*)$", done.stdout, re.MULTILINE)
        if done.returncode == 0 and joined is not None:
            return joined[1] if address == _AUTO and joined[1] else address
        said = done.stderr
        reason = (said.strip().splitlines() or ["no reason given"])[-1]
    if "Unauthenticated" in said or "AuthenticationError" in said:
        raise UserError(
            f"the Ray cluster at {address} asks for its token: copy ~/.ray/auth_token from the machine "
            "on which it was started, or set RAY_AUTH_TOKEN",
            field="--address",
        )
    raise UserError(
        f"no Ray cluster answers at {address} ({reason[:200]}); {_ADVICE}", field="--address"
    )


def joining_environment() -> dict[str, str]:
    """Return what Ray needs to be told to use the token that `ray start` used, where there is one.

    With an explicit address Ray itself looks for none; a cluster without authentication ignores it.
    """
    given = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    kept = Path.home() / ".ray" / "auth_token"
    return {"RAY_AUTH_MODE": "token"} if given or kept.is_file() else {}


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""
