"""Addresses of clusters: what is refused, how fast, and in which words."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from evomerge.errors import UserError
from evomerge.workers import joining


@pytest.mark.parametrize("address", ["", "here", "http://host:1", "host:", "host:port", "a b:1"])
def test_what_cannot_be_an_address_is_refused(address: str) -> None:
    with pytest.raises(UserError, match="expected auto, HOST:PORT or ray://HOST:PORT"):
        joining.check_address(address)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1:1", "ray://127.0.0.1:1", "[::1]:1", "localhost:99999", "no.such.host.:7"),
        *("10.0.0..1:6379", f"{'a' * 64}.b:6379"),
    ],
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


@pytest.fixture(autouse=True)
def _nothing_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    joining.find_cluster.cache_clear()
    yield
    joining.find_cluster.cache_clear()


def answering(mode: str, asked: list[str]) -> Callable[..., tuple[str | None, str, str]]:
    """A cluster that only a driver of this mode can join."""

    def probe(_address: str, environment: Mapping[str, str]) -> tuple[str | None, str, str]:
        asked.append(environment["RAY_AUTH_MODE"])
        if asked[-1] == mode:
            return "10.0.0.1:6379", "", ""
        return None, "[.. W 1 1] gcs_client.cc: Unauthenticated: InvalidAuthToken", "no"

    return probe


@pytest.mark.parametrize("mode", ["disabled", "token"])
def test_a_driver_is_of_the_clusters_mode(
    monkeypatch: pytest.MonkeyPatch, listening: str, mode: str
) -> None:
    asked: list[str] = []
    monkeypatch.setenv("RAY_AUTH_TOKEN", "x")
    monkeypatch.setattr(joining, "_probe", answering(mode, asked))
    found = joining.find_cluster(listening)
    assert found == joining.Joining(listening, {"RAY_AUTH_MODE": mode})
    assert joining.find_cluster("auto").address == "10.0.0.1:6379"
    before = list(asked)
    joining.find_cluster(listening)
    assert asked == before  # it is known


def test_the_users_mode_is_obeyed(monkeypatch: pytest.MonkeyPatch, listening: str) -> None:
    asked: list[str] = []
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setattr(joining, "_probe", answering("token", asked))
    joining.find_cluster(listening)
    assert asked == ["token"]


@pytest.mark.parametrize("token", ["", "wrong"])
def test_a_token_that_is_missing_or_wrong_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, listening: str, token: str
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    monkeypatch.setattr(joining, "_probe", answering("another", []))
    with pytest.raises(UserError, match=r"asks for its token: copy ~/\.ray/auth_token"):
        joining.find_cluster(listening)


def test_what_never_answers_is_given_up_in_one_line(
    monkeypatch: pytest.MonkeyPatch, listening: str
) -> None:
    script = "import sys, time; print('raw C++ line', file=sys.stderr, flush=True); time.sleep(60)"
    monkeypatch.setattr(joining, "_PROBE", script)
    monkeypatch.setattr(joining, "SECONDS_TO_JOIN", 1.0)
    with pytest.raises(UserError, match=r"no Ray cluster answers at .*\(nothing in 1 s\)") as found:
        joining.find_cluster(listening)
    assert "raw" not in str(found.value)


def test_what_fails_says_its_last_line_and_a_refusal_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, listening: str
) -> None:
    monkeypatch.setattr(joining, "_PROBE", "raise SystemExit('noise\\nConnectionError: closed')")
    with pytest.raises(UserError, match=r"\(ConnectionError: closed\); start one with"):
        joining.find_cluster(listening)
    refused = (
        "import sys, time; print('Unauthenticated', file=sys.stderr, flush=True); time.sleep(60)"
    )
    monkeypatch.setattr(joining, "_PROBE", refused)
    start = time.monotonic()
    with pytest.raises(UserError, match="asks for its token"):
        joining.find_cluster(listening)
    assert time.monotonic() - start < joining.SECONDS_TO_JOIN


def test_a_token_is_where_ray_looks_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert not joining.has_token()
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("x")
    assert joining.has_token()
    monkeypatch.setenv("HOME", str(tmp_path / "other"))
    assert not joining.has_token()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "x")
    assert joining.has_token()


@pytest.mark.slow
@pytest.mark.parametrize("token", [True, False])
def test_a_cluster_of_ray_start_is_joined_with_its_token_or_without(
    tmp_path: Path, token: bool
) -> None:
    """As the README says: `ray start`, then `--address HOST:PORT`; nothing of Ray's reaches the user."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    (tmp_path / "h").mkdir()
    own = {"HOME": str(tmp_path / "h"), "RAY_USAGE_STATS_ENABLED": "0"}
    own["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, **own}
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_worker_niceness"):
        env.pop(name, None)
    make_token = ["ray", "get-auth-token", "--generate"]
    if token:
        subprocess.run(make_token, env=env, capture_output=True, check=True)
    start = f"ray start --head --block --port={port} --num-cpus=1 --node-ip-address=127.0.0.1"
    head = subprocess.Popen(
        [*start.split(), "--include-dashboard=false", "--disable-usage-stats"],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    script = (
        "import os, sys\n"
        "from evomerge.workers.cluster import Cluster\n"
        "cluster = Cluster(count=1, cpus=1, gpus=0, address=sys.argv[1])\n"
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
        if not token:  # made later, for another cluster: it must not be used for this one
            subprocess.run(make_token, env=env, capture_output=True, check=True)
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
