"""An OpenAI-compatible proxy: each request goes to the member of an ensemble that answers it best.

Bodies go through as they are, but for the name of the model; what streams is passed on piece by piece.
Nothing of a prompt or an answer is written anywhere.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import httpx2
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from evomerge.combine.requests import PATHS, Body, Prompt, RequestError, prompts_of

ANSWERED_BY = "x-evomerge-member"
"""Header of a response: the member that answered."""
CONNECT_SECONDS = 10.0
"""An answer may take any time; a connection may not."""
NOT_FORWARDED = {
    *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection"),
    *("te", "trailer", "transfer-encoding", "upgrade", "host", "content-length", "expect"),
}
NOT_RETURNED = {"connection", "keep-alive", "transfer-encoding", "date", "server", "upgrade"}

Choose = Callable[[Sequence[Prompt]], Awaitable[Sequence[str]]]
"""Prompts → the member that answers each."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Upstream:
    """Where a member is served.

    Attributes:
        url: Of the server, without a path of the API: `http://127.0.0.1:8000`.
        model: The member's name there.
    """

    url: str
    model: str


class Refused(Exception):  # noqa: N818 - it states an outcome
    """A request that ends without the answer of a member."""

    def __init__(self, status: int, message: str, kind: str) -> None:
        super().__init__(message)
        self.status, self.message, self.kind = status, message, kind

    def body(self) -> dict[str, Any]:
        """Return it as the API writes errors."""
        error = {"message": self.message, "type": self.kind, "param": None, "code": self.status}
        return {"error": error}

    def response(self) -> Response:
        """Return it as a response."""
        return JSONResponse(self.body(), self.status)


def application(
    name: str,
    members: Mapping[str, Upstream],
    choose: Choose,
    client: Callable[[], httpx2.AsyncClient] | None = None,
) -> Starlette:
    """Return the proxy as an ASGI application.

    Args:
        name: The model that clients name to be routed; a member's name goes straight to that member.
        members: Name → where it is served.
        choose: The router.
        client: Opens what upstreams are asked with.
    """

    @asynccontextmanager
    async def opened(app: Starlette) -> AsyncIterator[None]:
        async with (client or open_client)() as connection:
            app.state.client = connection
            yield

    async def models(_: Request) -> Response:
        listed = [
            {"id": each, "object": "model", "created": 0, "owned_by": "evomerge"}
            for each in (name, *members)
        ]
        return JSONResponse({"object": "list", "data": listed})

    async def health(_: Request) -> Response:
        return Response()

    async def unknown(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        known = ", ".join((*PATHS, "/v1/models"))
        message = f"{request.method} {request.url.path} is not served here; known: {known}"
        return Refused(error.status_code, message, "invalid_request_error").response()

    answered = [
        Route(path, _Completions(name, members, choose, path), methods=["POST"]) for path in PATHS
    ]
    return Starlette(
        routes=[*answered, Route("/v1/models", models), Route("/health", health)],
        exception_handlers={404: unknown, 405: unknown},
        lifespan=opened,
    )


def open_client() -> httpx2.AsyncClient:
    """Open what upstreams are asked with: any number of connections, and no proxy of the environment's."""
    return httpx2.AsyncClient(
        timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=32),
        trust_env=False,
    )


class _Completions:
    """One endpoint that a member answers, as an ASGI application."""

    def __init__(
        self, name: str, members: Mapping[str, Upstream], choose: Choose, path: str
    ) -> None:
        self._name, self._members, self._choose, self._path = name, members, choose, path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            content = await request.body()
        except ClientDisconnect:
            return
        async with anyio.create_task_group() as group:
            group.start_soon(_cancel_when_gone, receive, group)
            await self._answered(request, content, send)
            group.cancel_scope.cancel()

    async def _answered(self, request: Request, content: bytes, send: Send) -> None:
        start = time.perf_counter()
        member = "-"
        try:
            body = _json(content)
            chosen = await self._chosen(body)
            member = "+".join(dict.fromkeys(chosen))
            if len(set(chosen)) == 1:
                status = await self._forward(request, body, chosen[0], send)
            else:
                response = await self._shared_out(request, body, chosen)
                await response(request.scope, request.receive, send)
                status = response.status_code
        except Refused as refused:
            await refused.response()(request.scope, request.receive, send)
            status = refused.status
        log.info("%s %s %d %.3f s", self._path, member, status, time.perf_counter() - start)

    async def _chosen(self, body: Body) -> Sequence[str]:
        """Return the member that answers each prompt of a request."""
        asked = body.get("model")
        if asked not in (None, self._name, *self._members):
            known = ", ".join((self._name, *self._members))
            message = f"found model {json.dumps(asked)}, expected one of {known}"
            raise Refused(404, message, "invalid_request_error")
        try:
            prompts = prompts_of(self._path, body)
        except RequestError as error:
            raise Refused(400, str(error), "invalid_request_error") from None
        if asked in self._members:
            return [str(asked)] * len(prompts)
        try:
            return await self._choose(prompts)
        except RequestError as error:
            raise Refused(400, str(error), "invalid_request_error") from None
        except Exception as error:  # noqa: BLE001 - its message and traceback may quote the prompt
            log.error("the router failed: %s", type(error).__name__)
            message = f"the router failed ({type(error).__name__})"
            raise Refused(500, message, "server_error") from None

    async def _forward(self, request: Request, body: Body, member: str, send: Send) -> int:
        """Pass a request on, and the answer back as it comes; return its status."""
        async with self._asked(request, body, member) as answer:
            headers = [
                (key.lower(), value)
                for key, value in answer.headers.raw
                if key.decode("latin-1").lower() not in NOT_RETURNED
            ]
            headers.append((ANSWERED_BY.encode(), member.encode("ascii", "replace")))
            start = {"type": "http.response.start", "status": answer.status_code}
            await send({**start, "headers": headers})
            streams = answer.headers.get("content-type", "").startswith("text/event-stream")
            try:
                async for piece in answer.aiter_raw():
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            except httpx2.HTTPError as error:
                if not streams:  # a body without its end: the server breaks the connection off, too
                    return answer.status_code
                broken = json.dumps(_unreachable(self._members[member], error).body())
                event = f"data: {broken}\n\n".encode()
                await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        return answer.status_code

    async def _shared_out(
        self, request: Request, body: Body, chosen: Sequence[str]
    ) -> JSONResponse | Response:
        """Ask several members for their prompts of one request, and join their answers."""
        if body.get("stream"):
            message = "its prompts go to several members; to stream, send one prompt a request"
            raise Refused(400, message, "invalid_request_error")
        answers: dict[str, httpx2.Response] = {}
        places = {
            member: [place for place, one in enumerate(chosen) if one == member]
            for member in dict.fromkeys(chosen)
        }

        async def ask(member: str) -> None:
            own = {**body, "prompt": [body["prompt"][place] for place in places[member]]}
            async with self._asked(request, own, member, encoding="identity") as answer:
                try:
                    await answer.aread()
                except httpx2.HTTPError as error:
                    raise _unreachable(self._members[member], error) from None
            answers[member] = answer

        try:
            async with anyio.create_task_group() as group:
                for member in places:
                    group.start_soon(ask, member)
        except ExceptionGroup as errors:
            raise _first(errors) from None
        for answer in answers.values():
            if answer.status_code != 200:
                kind = answer.headers.get("content-type")
                return Response(answer.content, answer.status_code, media_type=kind)
        try:
            return JSONResponse(joined({m: answers[m].json() for m in places}, places, body))
        except (ValueError, KeyError, TypeError, IndexError):
            message = "an upstream answered with something else than completions"
            raise Refused(502, message, "upstream_error") from None

    @asynccontextmanager
    async def _asked(
        self, request: Request, body: Body, member: str, *, encoding: str | None = None
    ) -> AsyncIterator[httpx2.Response]:
        """Ask the upstream of a member; its body is not read yet."""
        upstream = self._members[member]
        client: httpx2.AsyncClient = request.app.state.client
        headers = {key: value for key, value in request.headers.items() if key not in NOT_FORWARDED}
        headers["accept-encoding"] = encoding or headers.get("accept-encoding", "identity")
        headers["content-type"] = "application/json"
        content = json.dumps({**body, "model": upstream.model}).encode()
        try:
            asked = client.build_request(
                "POST", upstream.url + self._path, headers=headers, content=content
            )
            answer = await client.send(asked, stream=True)
        except httpx2.HTTPError as error:
            raise _unreachable(upstream, error) from None
        try:
            yield answer
        finally:
            with anyio.CancelScope(shield=True):
                await answer.aclose()


def joined(
    answers: Mapping[str, Any], places: Mapping[str, Sequence[int]], body: Body
) -> dict[str, Any]:
    """Join the completions of several members in the order of a request's prompts.

    Args:
        answers: Member → its answer.
        places: Member → which of the request's prompts it answered.
        body: The request.
    """
    number_of = body.get("n")
    each = number_of if type(number_of) is int and number_of > 0 else 1
    choices = []
    for member, answer in answers.items():
        for choice in answer["choices"]:
            prompt, number = divmod(choice["index"], each)
            choices.append({**choice, "index": places[member][prompt] * each + number})
    usage: dict[str, int] = {}
    for answer in answers.values():
        for name, count in (answer.get("usage") or {}).items():
            if isinstance(count, int):
                usage[name] = usage.get(name, 0) + count
    first = next(iter(answers.values()))
    choices.sort(key=lambda choice: choice["index"])
    return {**first, "model": "+".join(answers), "choices": choices, "usage": usage}


async def _cancel_when_gone(receive: Receive, group: anyio.abc.TaskGroup) -> None:
    """Stop what is done for a client that hung up, and so what its upstream does."""
    while (await receive())["type"] != "http.disconnect":
        pass
    group.cancel_scope.cancel()


def _json(content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Refused(400, "expected a JSON object", "invalid_request_error")
    return body


def _unreachable(upstream: Upstream, error: httpx2.HTTPError) -> Refused:
    reason = str(error) or type(error).__name__
    message = f"the upstream {upstream.url} does not answer for {upstream.model}: {reason}"
    return Refused(502, message, "upstream_error")


def _first(errors: ExceptionGroup[Exception]) -> Exception:
    found: Exception = errors
    while isinstance(found, ExceptionGroup):
        found = found.exceptions[0]
    return found
