"""A Hub on loopback that takes repositories, small files in commits and large ones by LFS."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

TOKEN = "hf_right"
LARGE = ".safetensors"


class HubStub:
    """What it was given.

    Attributes:
        repos: Id → whether it is private.
        files: Repository → path → content, as committed last.
        commits: Messages, in their order.
        uploaded: SHA-256 → content of what came by LFS.
        denied: Status with which it answers everything; None: it works.
        faults: What it finds wrong in a card's metadata.
        lfs: Whether it wants large files by LFS.
    """

    def __init__(self, *, lfs: bool = True) -> None:
        self.repos: dict[str, bool] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.commits: list[str] = []
        self.uploaded: dict[str, bytes] = {}
        self.denied: int | None = None
        self.faults: list[dict[str, str]] = []
        self.lfs = lfs
        self.url = ""

    def answer(self, method: str, path: str, body: bytes, token: str) -> tuple[int, Any]:
        """Return status and JSON."""
        path = path.partition("?")[0]
        if path.startswith("/upload/"):
            oid = path.removeprefix("/upload/")
            assert hashlib.sha256(body).hexdigest() == oid
            self.uploaded[oid] = body
            return 200, {}
        if token != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid username or password."}
        if self.denied is not None:
            return self.denied, {"error": "You don't have the rights to do this."}
        if (method, path) == ("POST", "/api/repos/create"):
            return self._create(json.loads(body))
        if (method, path) == ("POST", "/api/validate-yaml"):
            return 400 if self.faults else 200, {"warnings": [], "errors": self.faults}
        if path.endswith(".git/info/lfs/objects/batch"):
            return 200, {"transfer": "basic", "objects": list(map(self._action, objects(body)))}
        _, _, _, user, name, what, *_ = [*path.split("/"), *[""] * 6]
        repo = f"{user}/{name}"
        if repo not in self.repos:
            return 404, {"error": f"Repository not found: {method} {path}"}
        if what == "preupload":
            return 200, {"files": [self._mode(one) for one in json.loads(body)["files"]]}
        if what == "tree":
            return 200, [
                {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
                for name, content in self.files.get(repo, {}).items()
            ]
        if what == "commit":
            return self._commit(repo, [json.loads(line) for line in body.splitlines()])
        return 404, {"error": f"{method} {path}"}

    def _create(self, asked: dict[str, Any]) -> tuple[int, Any]:
        repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
        known = repo in self.repos
        self.repos.setdefault(
            repo, asked.get("visibility") == "private" or bool(asked.get("private"))
        )
        url = {"url": f"{self.url}/{repo}", "name": repo}
        return (
            (409, {**url, "error": "You already created this model repo"}) if known else (200, url)
        )

    def _mode(self, file: dict[str, Any]) -> dict[str, Any]:
        large = self.lfs and file["path"].endswith(LARGE)
        mode = "lfs" if large else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None}

    def _action(self, one: dict[str, Any]) -> dict[str, Any]:
        return {**one, "actions": {"upload": {"href": f"{self.url}/upload/{one['oid']}"}}}

    def _commit(self, repo: str, lines: list[dict[str, Any]]) -> tuple[int, Any]:
        files = self.files.setdefault(repo, {})
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.commits.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.uploaded[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        oid = f"{len(self.commits):040x}"
        return 200, {"commitUrl": f"{self.url}/{repo}/commit/{oid}", "commitOid": oid}


def objects(body: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(body)["objects"]
    return found


@contextmanager
def serving(stub: HubStub) -> Iterator[HubStub]:
    """Let it listen on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            token = self.headers.get("Authorization", "")
            status, data = stub.answer(self.command, self.path, body, token)
            content = json.dumps(data).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST  # noqa: N815

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
