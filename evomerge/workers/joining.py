"""Whether a Ray cluster answers at an address, found out where Ray may hang, and print, as it likes.

Ray goes on trying for many minutes, and its C++ side writes to stderr meanwhile.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO

from evomerge.errors import UserError

SECONDS_TO_ANSWER = 5.0
SECONDS_TO_JOIN = 25.0
"""Ray takes two on an idle machine."""

_AUTO, _MODE = "auto", "RAY_AUTH_MODE"
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
    except (OSError, OverflowError, UnicodeError) as error:  # the last of a host that is no name
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"no Ray cluster answers at {address} ({reason}); {_ADVICE}", field="--address"
        ) from None


@dataclass(frozen=True)
class Joining:
    """How to join a cluster: its address, also where `auto` found it, and what Ray needs to be told."""

    address: str
    environment: Mapping[str, str]


@lru_cache(maxsize=8)
def find_cluster(address: str) -> Joining:
    """Join a cluster at `auto`, `HOST:PORT` or `ray://HOST:PORT` from another process, and leave it.

    A driver must be of the cluster's own mode: with a token where it asks for one, else without, or calls
    back to it fail. Ray itself checks whether this machine has a token.

    Raises:
        UserError: No cluster answers there, or it asks for a token that is not here.
    """
    check_address(address)
    modes = [os.environ[_MODE]] if _MODE in os.environ else ["disabled", *(["token"] * has_token())]
    for mode in modes:
        joined, said, reason = _probe(address, {_MODE: mode})
        if joined is not None:
            found = joined if address == _AUTO and joined else address
            return Joining(found, {_MODE: mode})
        if not _asks_for_token(said):
            raise UserError(
                f"no Ray cluster answers at {address} ({reason[:200]}); {_ADVICE}",
                field="--address",
            )
    raise UserError(
        f"the Ray cluster at {address} asks for its token: copy ~/.ray/auth_token from the machine "
        "on which it was started, or set RAY_AUTH_TOKEN",
        field="--address",
    )


def has_token() -> bool:
    """Return whether Ray finds a token here."""
    given = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(given) or (Path.home() / ".ray" / "auth_token").is_file()


def _probe(address: str, environment: Mapping[str, str]) -> tuple[str | None, str, str]:
    """Return the address that was joined, or None; then what was said, and the reason in short."""
    with tempfile.TemporaryFile("a+") as out, tempfile.TemporaryFile("a+") as err:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROBE, address],
            env={**os.environ, **environment},
            stdout=out,
            stderr=err,
        )
        deadline = time.monotonic() + SECONDS_TO_JOIN
        try:
            while process.poll() is None and time.monotonic() < deadline:
                if _asks_for_token(_read(err)):
                    break  # Ray would ask again and again
                time.sleep(0.1)
        finally:
            ended = process.poll()
            process.kill()
            process.wait()
        said = _read(err)
        joined = re.search(r"^joined (\S*)$", _read(out), re.MULTILINE)
    if ended == 0 and joined is not None:
        return joined[1], said, ""
    if ended is None:
        return None, said, f"nothing in {SECONDS_TO_JOIN:g} s"
    return None, said, (said.strip().splitlines() or ["no reason given"])[-1]


def _asks_for_token(said: str) -> bool:
    return "Unauthenticated" in said or "AuthenticationError" in said


def _read(file: IO[str]) -> str:
    file.seek(0)
    return file.read()
