from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import httpx2
import openai
import pytest

from evomerge.combine.proxy import ANSWERED_BY, Upstream, application
from evomerge.combine.requests import Conversation, Prompt, RequestError
from tests.combine import served

NAMES = {"alpha": "lora-a", "beta": "lora-b"}
SECRET = "swordfish"


async def choose(prompts: Sequence[Prompt]) -> list[str]:
    """Send a prompt to `beta` where its last word or token says so."""
    found = []
    for prompt in prompts:
        text = prompt.messages[-1]["content"] if isinstance(prompt, Conversation) else prompt
        if "fails" in text:
            raise ValueError(f"cannot read {text}")
        if "template" in text:
            raise RequestError("roles must alternate", field="messages")
        found.append("beta" if text[-1] == 7 or text[-4:] == "beta" else "alpha")
    return found


@pytest.fixture
def upstream() -> served.Upstream:
    return served.Upstream()


@pytest.fixture
def url(upstream: served.Upstream) -> Iterator[str]:
    with ExitStack() as stack:
        behind = stack.enter_context(served.served(upstream.app))
        yield stack.enter_context(served.served(proxied(behind)))


@pytest.fixture
def dead() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with served.served(proxied(f"http://127.0.0.1:{port}")) as url:
        yield url


def proxied(url: str) -> object:
    members = {name: Upstream(url, model) for name, model in NAMES.items()}
    return application("crew", members, choose)


def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def chat(url: str, content: object, **more: object) -> httpx2.Response:
    body = {"model": "crew", "messages": [{"role": "user", "content": content}], **more}
    return httpx2.post(f"{url}/v1/chat/completions", json=body, trust_env=False)


def complete(url: str, prompt: object, **more: object) -> httpx2.Response:
    body = {"model": "crew", "prompt": prompt, **more}
    return httpx2.post(f"{url}/v1/completions", json=body, trust_env=False)


def test_two_hundred_at_once_are_neither_lost_nor_misrouted(
    url: str, upstream: served.Upstream
) -> None:
    async def ask(clients: openai.AsyncOpenAI, number: int) -> tuple[str, str]:
        member = ("alpha", "beta")[number % 2]
        asked = f"question {number} for {member}"
        messages = [{"role": "user", "content": asked}]
        if number % 3 == 0:
            stream = await clients.chat.completions.create(
                model="crew", messages=messages, stream=True
            )
            said = [piece.choices[0].delta.content or "" async for piece in stream]
            return "".join(said).strip(), f"{NAMES[member]}: {asked}"
        if number % 3 == 1:
            answer = await clients.chat.completions.create(model="crew", messages=messages)
            return answer.choices[0].message.content, f"{NAMES[member]}: {asked}"
        text = await clients.completions.create(model="crew", prompt=asked)
        return text.choices[0].text, f"{NAMES[member]}: {asked} 0"

    async def all_at_once() -> list[tuple[str, str]]:
        async with openai.AsyncOpenAI(
            base_url=f"{url}/v1", api_key="none", max_retries=0
        ) as clients:
            return await asyncio.gather(*(ask(clients, number) for number in range(200)))

    answers = asyncio.run(all_at_once())
    assert len(answers) == 200
    assert [found for found, expected in answers if found != expected] == []
    assert sorted(body["model"] for body in upstream.asked) == ["lora-a"] * 100 + ["lora-b"] * 100


def test_what_streams_is_passed_on_as_it_comes(url: str, upstream: served.Upstream) -> None:
    messages = [{"role": "user", "content": "one waits then beta"}]
    stream = client(url).chat.completions.create(model="crew", messages=messages, stream=True)
    pieces = iter(stream)
    first = [next(pieces).choices[0].delta.content for _ in range(3)]
    assert first == ["lora-b: ", "one ", "waits "]  # the upstream waits for us
    upstream.go_on.set()
    assert [piece.choices[0].delta.content for piece in pieces] == ["then ", "beta "]


def test_only_the_model_of_a_request_is_changed(url: str, upstream: served.Upstream) -> None:
    body = {"messages": [{"role": "user", "content": "é beta"}], "seed": 3, "x": {"y": [1.5, None]}}
    answer = httpx2.post(
        f"{url}/v1/chat/completions", json=body, headers={"Authorization": "Bearer key"}
    )
    assert upstream.asked == [{**body, "model": "lora-b"}]
    assert upstream.headers[0]["authorization"] == "Bearer key"
    assert upstream.headers[0]["host"] != httpx2.URL(url).netloc.decode()
    assert answer.json()["model"] == "lora-b"
    assert answer.headers[ANSWERED_BY] == "beta"


def test_a_member_can_be_named(url: str, upstream: served.Upstream) -> None:
    answer = chat(url, "it fails, so it is not routed", model="beta")
    assert answer.headers[ANSWERED_BY] == "beta"
    assert [body["model"] for body in upstream.asked] == ["lora-b"]


def test_the_models_are_the_ensemble_and_its_members(url: str) -> None:
    assert [model.id for model in client(url).models.list()] == ["crew", "alpha", "beta"]


def test_prompts_of_one_request_go_each_to_its_member(url: str, upstream: served.Upstream) -> None:
    answer = complete(url, ["a", "to beta", "c"], n=2)
    assert [choice["text"] for choice in answer.json()["choices"]] == [
        *("lora-a: a 0", "lora-a: a 1", "lora-b: to beta 0", "lora-b: to beta 1"),
        *("lora-a: c 0", "lora-a: c 1"),
    ]
    assert [choice["index"] for choice in answer.json()["choices"]] == [0, 1, 2, 3, 4, 5]
    assert answer.json()["usage"]["prompt_tokens"] == 3
    assert len(upstream.asked) == 2


def test_prompts_may_be_tokens(url: str, upstream: served.Upstream) -> None:
    assert complete(url, [3, 7]).headers[ANSWERED_BY] == "beta"
    assert complete(url, [[3, 4], [5, 4]]).headers[ANSWERED_BY] == "alpha"
    assert [body["prompt"] for body in upstream.asked] == [[3, 7], [[3, 4], [5, 4]]]


def test_parts_of_a_message_are_read_as_text(url: str) -> None:
    parts = [{"type": "text", "text": "this is"}, {"type": "text", "text": "for beta"}]
    assert chat(url, parts).headers[ANSWERED_BY] == "beta"


def test_an_upstreams_own_errors_pass_through(url: str) -> None:
    answer = complete(url, "a", max_tokens=0)
    assert answer.status_code == 418
    assert answer.json() == {"error": {"message": "max_tokens is 0"}}
    joined = complete(url, ["a", "to beta"], max_tokens=0)
    assert (joined.status_code, joined.json()) == (418, answer.json())


@pytest.mark.parametrize(
    ("status", "field", "body"),
    [
        (400, "JSON object", []),
        (400, "prompt: ", {}),
        (400, "prompt: ", {"prompt": []}),
        (400, "prompt: ", {"prompt": [[1], "a", 2]}),
        (400, "prompt: ", {"prompt": [True]}),
        (404, "crew, alpha, beta", {"model": "gamma", "prompt": "a"}),
        (400, "several members", {"prompt": ["a", "beta"], "stream": True}),
        (400, "messages: roles must alternate", {"prompt": "template"}),
        (500, "ValueError", {"prompt": "it fails"}),
    ],
)
def test_what_cannot_be_answered_is_refused(
    url: str, upstream: served.Upstream, status: int, field: str, body: object
) -> None:
    answer = httpx2.post(f"{url}/v1/completions", json=body)
    assert answer.status_code == status
    assert field in answer.json()["error"]["message"]
    assert upstream.asked == []


@pytest.mark.parametrize("messages", [None, [], ["a"], [{"content": "a"}]])
def test_a_chat_needs_messages(url: str, messages: object) -> None:
    body = {"messages": messages}
    answer = httpx2.post(f"{url}/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("messages")


def test_other_paths_are_not_passed_on(url: str, upstream: served.Upstream) -> None:
    answer = httpx2.post(f"{url}/v1/load_lora_adapter", json={})
    assert answer.status_code == 404
    assert "/v1/chat/completions" in answer.json()["error"]["message"]
    assert httpx2.get(f"{url}/v1/completions").status_code == 405
    assert httpx2.get(f"{url}/health").status_code == 200
    assert upstream.asked == []


def test_a_dead_upstream_is_said_to_be_dead(dead: str) -> None:
    answer = chat(dead, "a")
    assert answer.status_code == 502
    error = answer.json()["error"]
    assert error["message"].startswith("the upstream http://127.0.0.1:")
    assert "does not answer for lora-a" in error["message"]
    assert error["code"] == 502
    with pytest.raises(openai.InternalServerError, match="does not answer"):
        client(dead).completions.create(model="crew", prompt="a")
    assert complete(dead, ["a", "beta"]).status_code == 502


def test_an_answer_that_breaks_off_between_members_is_an_upstreams_error(url: str) -> None:
    answer = complete(url, ["a", "to beta", "this breaks"])
    assert answer.status_code == 502
    assert "does not answer for lora-a" in answer.json()["error"]["message"]


def test_half_a_surrogate_pair_reaches_the_upstream_as_it_was_sent(
    url: str, upstream: served.Upstream
) -> None:
    body = b'{"model": "crew", "prompt": "a", "user": "\\ud83d"}'
    headers = {"content-type": "application/json"}
    answer = httpx2.post(f"{url}/v1/completions", content=body, headers=headers)
    assert answer.status_code == 200
    assert upstream.asked[-1]["user"] == "\ud83d"


def test_a_stream_that_breaks_off_ends_with_an_error(url: str) -> None:
    messages = [{"role": "user", "content": "it breaks here"}]
    stream = client(url).chat.completions.create(model="crew", messages=messages, stream=True)
    said = []
    with pytest.raises(openai.APIError, match="does not answer"):
        said += [piece.choices[0].delta.content for piece in stream]
    assert chat(url, "still there").status_code == 200


@pytest.mark.parametrize("stream", [True, False])
def test_who_hangs_up_cancels_the_upstream(
    url: str, upstream: served.Upstream, stream: bool
) -> None:
    body = {"messages": [{"role": "user", "content": "waits"}], "stream": stream}
    address = httpx2.URL(url)
    with socket.create_connection((address.host, address.port)) as connection:
        request = httpx2.Request("POST", f"{url}/v1/chat/completions", json=body)
        head = f"POST {request.url.path} HTTP/1.1\r\nHost: x\r\n"
        head += f"Content-Length: {len(request.content)}\r\n\r\n"
        connection.sendall(head.encode() + request.content)
        assert upstream.begun.wait(10)
    assert upstream.cancelled.wait(10)
    assert chat(url, "still there").status_code == 200


def test_prompts_are_never_logged(
    url: str, dead: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.NOTSET)
    for prompt in (SECRET, f"fails {SECRET}", f"template {SECRET}", [SECRET, f"{SECRET} beta"]):
        complete(url, prompt)
        complete(dead, prompt)
    chat(url, f"breaks {SECRET}", stream=True)
    chat(url, {"no text": SECRET})
    httpx2.post(f"{url}/v1/completions", content=f'{{"prompt": "{SECRET}"')
    written = caplog.text + "".join(capfd.readouterr())
    assert "/v1/completions alpha 200" in written
    assert "evomerge.combine.proxy" in written
    assert SECRET not in written
