"""Addresses of clusters: what is refused, how fast, and in which words."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from evomerge.errors import UserError
from evomerge.workers import joining


@pytest.mark.parametrize("address", ["", "here", "http://host:1", "host:", "host:port", "a b:1"])
def test_what_cannot_be_an_address_is_refused(address: str) -> None:
    with pytest.raises(UserError, match="expected auto, HOST:PORT or ray://HOST:PORT"):
        joining.check_address(address)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "ray://127.0.0.1:1", "[::1]:1", "localhost:99999", "no.such.host.:7"]
)
def test_where_nothing_listens_is_said_at_once(address: str) -> None:
    start = time.monotonic()
    with pytest.raises(UserError, match=r"--address: no Ray cluster answers at .* start one with"):
        joining.check_address(address)
    assert time.monotonic() - start < joining.SECONDS_TO_ANSWER + 5


@pytest.fixture
def listening() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def done(returncode: int, out: str = "", err: str = "") -> object:
    return lambda *_args, **_rest: subprocess.CompletedProcess([], returncode, out, err)


@pytest.mark.parametrize(
    ("address", "out", "expected"),
    [
        ("auto", "joined 10.0.0.1:6379\n", "10.0.0.1:6379"),
        ("auto", "joined \n", "auto"),
        ("LISTENING", "noise\njoined 10.0.0.1:6379\n", "LISTENING"),
    ],
)
def test_auto_becomes_the_address_that_was_found(
    monkeypatch: pytest.MonkeyPatch, listening: str, address: str, out: str, expected: str
) -> None:
    monkeypatch.setattr(joining.subprocess, "run", done(0, out))
    known = {"LISTENING": listening}
    address = known.get(address, address)
    assert joining.check_joinable(address) == known.get(expected, expected)


def test_a_token_that_is_missing_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, listening: str
) -> None:
    said = "[.. W 1 1] gcs_client.cc: Unauthenticated: InvalidAuthToken\nConnectionError: failed"
    monkeypatch.setattr(joining.subprocess, "run", done(1, err=said))
    with pytest.raises(UserError, match=r"asks for its token: copy ~/\.ray/auth_token"):
        joining.check_joinable(listening)


def test_what_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch, listening: str) -> None:
    def hang(command: list[str], timeout: float, **_rest: object) -> None:
        raise subprocess.TimeoutExpired(command, timeout, stderr=b"[.. W] Failed to connect")

    monkeypatch.setattr(joining.subprocess, "run", hang)
    with pytest.raises(UserError, match=r"no Ray cluster answers at .*nothing in 25 s") as found:
        joining.check_joinable(listening)
    assert "\n" not in str(found.value)


def test_a_token_that_is_here_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert joining.joining_environment() == {}
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("x")
    assert joining.joining_environment() == {"RAY_AUTH_MODE": "token"}
    monkeypatch.setenv("HOME", str(tmp_path / "other"))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "x")
    assert joining.joining_environment() == {"RAY_AUTH_MODE": "token"}


@pytest.mark.slow
def test_a_cluster_of_ray_start_is_joined_with_its_token(tmp_path: Path) -> None:
    """As the README says: `ray start`, then `--address HOST:PORT`; nothing of Ray's reaches the user."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    (tmp_path / "h").mkdir()
    own = {"HOME": str(tmp_path / "h"), "RAY_USAGE_STATS_ENABLED": "0"}
    own["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, **own}
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_worker_niceness"):
        env.pop(name, None)
    subprocess.run(
        ["ray", "get-auth-token", "--generate"], env=env, capture_output=True, check=True
    )
    start = f"ray start --head --block --port={port} --num-cpus=1 --node-ip-address=127.0.0.1"
    head = subprocess.Popen(
        [*start.split(), "--include-dashboard=false", "--disable-usage-stats"],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    script = (
        "import os, sys\n"
        "from evomerge.workers.joining import check_joinable\n"
        "from evomerge.workers.cluster import Cluster\n"
        "cluster = Cluster(count=1, cpus=1, gpus=0, address=check_joinable(sys.argv[1]))\n"
        "import ray\n"
        "print(cluster.count, ray.get(ray.remote(lambda: os.nice(0)).remote()))\n"
        "cluster.close()\n"
    )
    try:
        address = f"127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                joining.check_address(address)
                break
            except UserError:
                time.sleep(0.2)
        joined = subprocess.run(
            [sys.executable, "-c", script, address],
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert (joined.returncode, joined.stderr) == (0, "")
        assert joined.stdout == "1 0\n"
    finally:
        head.terminate()
        head.wait(timeout=60)
