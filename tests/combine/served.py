"""ASGI applications on ports of this machine, and an upstream whose members say who they are."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve an application by a thread; yield its URL."""
    config = uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


class Upstream:
    """Answers as two models would: what each says is its name, and the prompt."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.cancelled, self.go_on = threading.Event(), threading.Event()
        self.begun = threading.Event()
        self.app = Starlette(
            routes=[
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
                Route("/v1/completions", self.complete, methods=["POST"]),
                Route("/v1/models", self.models),
            ]
        )

    async def models(self, _: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": "lora-a"}, {"id": "lora-b"}]})

    async def chat(self, request: Request) -> Response:
        body = await self._read(request)
        said = f"{body['model']}: {body['messages'][-1]['content']}"
        if body.get("stream"):
            return StreamingResponse(self._pieces(body, said), media_type="text/event-stream")
        while said.endswith("waits") and not self.go_on.is_set():
            if await request.is_disconnected():
                self.cancelled.set()
            await asyncio.sleep(0.01)
        message = {"role": "assistant", "content": said}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return JSONResponse({**self._head(body), "object": "chat.completion", "choices": [choice]})

    async def complete(self, request: Request) -> Response:
        body = await self._read(request)
        if body.get("max_tokens") == 0:
            return JSONResponse({"error": {"message": "max_tokens is 0"}}, 418)
        prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
        if "this breaks" in prompts:
            return StreamingResponse(self._broken(), media_type="application/json")
        each = body.get("n") or 1
        choices = [
            {
                "index": number,
                "text": f"{body['model']}: {prompts[number // each]} {number % each}",
                "finish_reason": "stop",
                "logprobs": None,
            }
            for number in range(each * len(prompts))
        ]
        usage = {"prompt_tokens": len(prompts), "completion_tokens": 2, "total_tokens": 3}
        return JSONResponse(
            {**self._head(body), "object": "text_completion", "choices": choices, "usage": usage}
        )

    async def _broken(self) -> AsyncIterator[str]:
        yield '{"object": '
        raise OSError("broken")

    async def _read(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = await request.json()
        self.asked.append(body)
        self.headers.append(dict(request.headers))
        self.begun.set()
        return body

    def _head(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"id": "one", "created": 0, "model": body["model"]}

    async def _pieces(self, body: dict[str, Any], said: str) -> AsyncIterator[str]:
        head = {**self._head(body), "object": "chat.completion.chunk"}
        try:
            for word in said.split():
                choice = {"index": 0, "delta": {"content": f"{word} "}, "finish_reason": None}
                yield f"data: {json.dumps({**head, 'choices': [choice]})}\n\n"
                if word == "breaks":
                    raise OSError("broken")
                while word == "waits" and not self.go_on.is_set():
                    await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        yield "data: [DONE]\n\n"
