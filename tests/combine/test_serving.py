from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from inspect import signature
from pathlib import Path

import openai
import pytest
import uvicorn

from evomerge.candidate.ensemble import Ensemble, Mix
from evomerge.cli import run_command
from evomerge.combine.folder import save_ensemble
from evomerge.combine.loaded import LoadedEnsemble, load
from evomerge.combine.requests import Conversation, RequestError
from evomerge.combine.serving import listen, members_at, missing_models, serve, tokens_of
from evomerge.errors import UserError
from tests.combine import served
from tests.combine.crew import PROMPTS, alone, ensemble
from tests.conftest import Family

NAMES = ("alpha", "beta")
URL = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def folder(llama_family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("served") / "crew"
    members = dict(zip(NAMES, map(alone, llama_family.experts), strict=False))
    save_ensemble(ensemble(llama_family.base, members), out)
    return out


@pytest.fixture
def opened(folder: Path) -> LoadedEnsemble:
    return load(folder)


@pytest.fixture
def upstream() -> Iterator[tuple[served.Upstream, str]]:
    found = served.Upstream()
    with served.served(found.app) as url:
        yield found, url


def test_requests_go_where_the_router_sends_them(
    folder: Path,
    opened: LoadedEnsemble,
    upstream: tuple[served.Upstream, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    behind, url = upstream
    servers: list[uvicorn.Server] = []
    ready = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            servers.append(self)
            ready.set()

    monkeypatch.setattr(uvicorn, "Server", Server)
    options = {"port": 0, "served": ["alpha=lora-a", "beta=lora-b"], "name": "crew"}
    thread = threading.Thread(target=serve, args=(folder, [f"{url}/v1"]), kwargs=options)
    thread.start()
    assert ready.wait(60)
    try:
        (server,) = servers
        port = server.servers[0].sockets[0].getsockname()[1]
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")
        routes = opened.route(PROMPTS)
        assert set(routes) == set(NAMES)
        answer = client.completions.create(model="crew", prompt=PROMPTS)
        called = dict(zip(NAMES, ("lora-a", "lora-b"), strict=True))
        assert [choice.text for choice in answer.choices] == [
            f"{called[member]}: {prompt} 0" for member, prompt in zip(routes, PROMPTS, strict=True)
        ]
        messages = [{"role": "user", "content": "hello"}]
        (member,) = opened.route(["user: hello\nassistant: "])
        said = client.chat.completions.create(model="crew", messages=messages)
        assert said.choices[0].message.content == f"{called[member]}: hello"
    finally:
        servers[0].should_exit = True
        thread.join(20)
    assert not thread.is_alive()
    assert f"serving crew (alpha, beta) at http://127.0.0.1:{port}/v1" in capsys.readouterr().out
    assert len(behind.asked) == 3


def test_a_prompt_is_read_as_the_members_read_it(opened: LoadedEnsemble) -> None:
    chat = Conversation([{"role": "user", "content": "hi"}])
    assert tokens_of(opened, chat) == opened.tokens(["user: hi\nassistant: "])[0]
    assert tokens_of(opened, (5, 6)) == [5, 6]
    assert tokens_of(opened, "hi") == opened.tokens(["hi"])[0]
    assert tokens_of(opened, "") == [1]
    assert opened.model.route([list(range(3, 200)) * 5])


def test_a_chat_template_may_be_missing_or_refuse(opened: LoadedEnsemble) -> None:
    chat = Conversation([{"role": "user", "content": "hi"}, {"role": "assistant"}])
    opened.tokenizer.chat_template = None
    assert tokens_of(opened, chat) == opened.tokens(["hi\n"])[0]
    opened.tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(RequestError, match=r"messages: .*roles must alternate"):
        tokens_of(opened, chat)


@pytest.mark.parametrize(
    ("upstreams", "served", "message"),
    [
        (["localhost:8000"], [], "found 'localhost:8000', expected http://HOST:PORT, or NAME=URL"),
        (["ftp://host"], [], "--upstream: found 'ftp://host'"),
        (["alpha=nowhere", URL], [], "--upstream: found 'nowhere', expected a URL"),
        (["alpa=" + URL, URL], [], 'no member is called "alpa"; did you mean "alpha"?'),
        (["alpha=" + URL], [], "the member beta has none"),
        ([URL, URL + "1"], [], "found two for all members"),
        ([URL], ["alpha"], "--map: found 'alpha', expected NAME=MODEL"),
        ([URL], ["gamma=x"], '--map: no member is called "gamma"'),
    ],
)
def test_what_is_no_upstream_is_refused(
    upstreams: list[str], served: list[str], message: str
) -> None:
    with pytest.raises(UserError) as error:
        members_at(NAMES, upstreams, served)
    assert message in str(error.value)


def test_members_may_have_upstreams_of_their_own() -> None:
    found = members_at(NAMES, [URL + "/v1/", "beta=http://[::1]:81/base/"], ["beta=model"])
    assert [(one.url, one.model) for one in found.values()] == [
        *((URL, "alpha"), ("http://[::1]:81/base", "model"))
    ]


def test_an_upstream_that_serves_other_models_is_refused(
    upstream: tuple[served.Upstream, str],
) -> None:
    _, url = upstream
    known = members_at(NAMES, [url], ["alpha=lora-a", "beta=lora-b"])
    assert missing_models(known) == []
    with pytest.raises(
        UserError, match=r'does not serve "beta"; known: lora-a, lora-b; .*--map beta'
    ):
        missing_models(members_at(NAMES, [url], ["alpha=lora-a"]))


def test_an_upstream_that_is_not_there_yet_is_noted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    (note,) = missing_models(members_at(NAMES, [url], []))
    assert note.startswith(url)


def test_a_port_in_use_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        taken.listen()
        status = run_command(["serve", str(folder), "--upstream", URL, "--port", str(port)])
    error = capsys.readouterr().err
    assert status == 2
    assert error.splitlines() == [
        f"evomerge: --port: cannot listen on 127.0.0.1:{port}: Address already in use; choose another"
    ]
    with pytest.raises(UserError, match=r"cannot listen on no\.such\.host"):
        listen("no.such.host", 0)


@pytest.mark.parametrize(
    ("name", "message"), [("nothing", "no such folder"), ("", "no combiner.json")]
)
def test_a_folder_without_an_ensemble_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    status = run_command(["serve", str(tmp_path / name), "--upstream", URL, "--port", "0"])
    error = capsys.readouterr().err
    assert (status, len(error.splitlines())) == (2, 1)
    assert message in error


def test_a_mix_cannot_be_served(
    llama_family: Family, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    members = dict(zip(NAMES, map(alone, llama_family.experts), strict=False))
    mix = Mix(dict.fromkeys(NAMES, 1.0), top_k=2)
    save_ensemble(Ensemble(llama_family.base, members, mix=mix), tmp_path / "mixed")
    status = run_command(["serve", str(tmp_path / "mixed"), "--upstream", URL, "--port", "0"])
    assert status == 2
    assert "token by token, which no proxy can do" in capsys.readouterr().err


def test_it_listens_on_loopback_unless_told_otherwise() -> None:
    assert signature(serve).parameters["host"].default == "127.0.0.1"
    with listen("127.0.0.1", 0) as one:
        assert one.getsockname()[0] == "127.0.0.1"
