"""Uploads, by the command, to a Hub on loopback that really receives the files."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.hub_stub import TOKEN, HubStub, serving

CARD = "---\ntags: [merge]\n---\n\n# Small\n"


@pytest.fixture
def hub() -> Iterator[HubStub]:
    with serving(HubStub()) as stub:
        yield stub


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results folder as far as a push reads it: two small files and a large one, one in a folder."""
    best = tmp_path / "small" / "best"
    (best / "members").mkdir(parents=True)
    (best / "config.json").write_text("{}")
    (best / "README.md").write_text(CARD)
    (best / "model.safetensors").write_bytes(bytes(range(256)) * 4096)
    (best / "members" / "adapter.safetensors").write_bytes(b"adapter")
    (tmp_path / "small" / "study.db").write_bytes(b"not for others")
    return tmp_path / "small"


def push(
    hub: str, *arguments: str | Path, token: str | None = TOKEN, **more: str
) -> subprocess.CompletedProcess[str]:
    home = {"HF_HOME": "/nonexistent", "HF_ENDPOINT": hub, **more}
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | home
    if token is not None:
        environment["HF_TOKEN"] = token
    command = [sys.executable, "-m", "evomerge", "push", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def refusal(done: subprocess.CompletedProcess[str], status: int) -> str:
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.removeprefix("evomerge: ")


def test_the_best_model_arrives_with_its_card(hub: HubStub, results: Path) -> None:
    done = push(hub.url, results, "me/merged", "--private", HF_HUB_DISABLE_XET="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{hub.url}/me/merged\n"
    assert hub.repos == {"me/merged": True}
    assert hub.files == {"me/merged": content(results / "best")}
    assert len(hub.uploaded) == 2
    assert hub.commits == ["Upload small with evomerge"]


def test_a_saved_model_arrives_in_a_repository_that_is_there(results: Path) -> None:
    with serving(HubStub(lfs=False)) as hub:
        hub.repos["me/merged"] = False
        earlier = {"model-00001-of-00002.safetensors": b"old", "notes.md": b"stays"}
        hub.files["me/merged"] = dict(earlier)
        done = push(hub.url, results / "best", "merged")
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{hub.url}/me/merged\n"
        assert hub.repos == {"me/merged": False}
        assert hub.files == {"me/merged": {"notes.md": b"stays", **content(results / "best")}}


def test_whoever_may_not_write_is_told(hub: HubStub, results: Path) -> None:
    assert "nobody is logged in" in refusal(push(hub.url, results, "me/merged", token=None), 2)
    wrong = refusal(push(hub.url, results, "me/merged", token="hf_wrong"), 2)
    assert wrong.startswith("me/merged: the Hub does not accept the token")
    hub.denied = 403
    denied = refusal(push(hub.url, results, "me/merged"), 2)
    assert denied.startswith("me/merged: the token may not write there")
    hub.denied = 400
    assert "does not take it (status 400)" in refusal(push(hub.url, results, "me/merged"), 1)
    hub.denied, hub.faults = None, [{"message": '"license" must be one of many'}]
    faulty = refusal(push(hub.url, results, "me/merged", HF_HUB_DISABLE_XET="1"), 1)
    assert 'Invalid metadata in README.md. - "license" must be one of many' in faulty
    assert hub.files == {}


@pytest.mark.parametrize("repo", ["a/b/c", "me/bad name", "--", "me/x..y"])
def test_a_wrong_name_is_told(hub: HubStub, results: Path, repo: str) -> None:
    assert f'found "{repo}", expected USER/NAME' in refusal(push(hub.url, results, "--", repo), 2)
    assert hub.repos == {}


def test_a_folder_without_a_model_is_told(hub: HubStub, results: Path, tmp_path: Path) -> None:
    (results / "best" / "config.json").unlink()
    assert "holds no saved model yet" in refusal(push(hub.url, results, "me/merged"), 2)
    assert "holds no model" in refusal(push(hub.url, tmp_path, "me/merged"), 2)
    assert "no such folder" in refusal(push(hub.url, tmp_path / "gone", "me/merged"), 2)
    assert hub.repos == {}


def test_a_network_that_is_down_is_told(results: Path) -> None:
    with socket.socket() as taken:  # a port on which nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        told = refusal(push(url, results, "me/merged"), 1)
    assert told.startswith(f"me/merged: the upload to {url} failed: ")
    offline = push(url, results, "me/merged", HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set" in refusal(offline, 2)
