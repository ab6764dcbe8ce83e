"""A saved ensemble behind one address: prompts → tokens → the base's states → members, and the proxy."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx2
import uvicorn
from transformers import PreTrainedTokenizerBase

from evomerge.combine.loaded import LoadedEnsemble, load
from evomerge.combine.proxy import Upstream, application
from evomerge.combine.requests import Conversation, Prompt, RequestError
from evomerge.combine.waiting import Batched
from evomerge.errors import UserError, nearest

SECONDS = 5.0
"""To ask an upstream for its models at the start."""


def serve(
    folder: Path,
    upstreams: Sequence[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    served: Sequence[str] = (),
    name: str | None = None,
    device: str = "cpu",
    trust_remote_code: bool = False,
) -> None:
    """Serve an ensemble until the process is interrupted.

    Args:
        folder: Of the ensemble.
        upstreams: URLs of servers: `URL` of all members, `NAME=URL` of one.
        host: Where to listen.
        port: Where to listen; 0: a free one.
        served: `NAME=SERVED`: what upstreams call a member, where that is not its name.
        name: What clients call the ensemble; None: the folder's name.
        device: Where the base reads prompts.
        trust_remote_code: Let the base run code of its own.

    Raises:
        UserError: The folder is no ensemble, or none that routes; an upstream is no URL, or does not serve
            a member; the port is in use.
    """
    listening = listen(host, port)
    with listening:
        ensemble = load(folder, device=device, trust_remote_code=trust_remote_code)
        if ensemble.model.combiner["router"] is None:
            raise UserError(
                "mixes its members token by token, which no proxy can do; load it with evomerge.load",
                file=folder,
            )
        members = members_at(ensemble.names, upstreams, served)
        for note in missing_models(members):
            print(note, flush=True)
        model = name or Path(folder).resolve().name
        app = application(model, members, Batched(chooser(ensemble)))
        log = logging.getLogger("evomerge.combine.proxy")
        log.setLevel(logging.INFO)
        log.addHandler(logging.StreamHandler())
        address = "{}:{}".format(f"[{host}]" if ":" in host else host, listening.getsockname()[1])
        print(f"serving {model} ({', '.join(members)}) at http://{address}/v1", flush=True)
        config = uvicorn.Config(
            app, access_log=False, log_level="error", timeout_graceful_shutdown=5
        )
        uvicorn.Server(config).run([listening])


def listen(host: str, port: int) -> socket.socket:
    """Take a port, before anything is loaded. Raises UserError: it is in use, or no address of this host."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        number = getattr(error, "errno", None) or 0
        reason = os.strerror(number) if number > 0 else str(getattr(error, "strerror", error))
        raise UserError(
            f"cannot listen on {host}:{port}: {reason}; choose another", field="--port"
        ) from None


def members_at(
    names: Sequence[str], upstreams: Sequence[str], served: Sequence[str]
) -> dict[str, Upstream]:
    """Return where each member is served. Arguments as of `serve`.

    Raises:
        UserError: An upstream is no URL, a member is unknown, or has no upstream.
    """
    called = dict(_pair(one, names, "--map") for one in served)
    common = [one for one in upstreams if _is_url(one)]
    own = dict(_pair(one, names, "--upstream") for one in upstreams if not _is_url(one))
    if len(common) > 1:
        raise UserError(
            f"found two for all members; expected one, or NAME={common[1]}", field="--upstream"
        )
    for url in own.values():
        if not _is_url(url):
            raise UserError(_no_url(url), field="--upstream")
    lacking = [name for name in names if name not in own]
    if lacking and not common:
        raise UserError(
            f"the member {lacking[0]} has none; expected a URL for all, or {lacking[0]}=URL",
            field="--upstream",
        )
    return {
        name: Upstream(
            own.get(name, *common).rstrip("/").removesuffix("/v1"), called.get(name, name)
        )
        for name in names
    }


def missing_models(members: Mapping[str, Upstream]) -> list[str]:
    """Ask upstreams what they serve; return notes of those that do not answer yet.

    Raises:
        UserError: One answers, and does not serve its members.
    """
    notes = []
    for url in dict.fromkeys(one.url for one in members.values()):
        try:
            with httpx2.Client(timeout=SECONDS, trust_env=False) as client:
                data = client.get(f"{url}/v1/models").json()["data"]
            known = {str(one["id"]) for one in data}
        except (httpx2.HTTPError, ValueError, KeyError, TypeError):
            notes.append(
                f"{url} does not say which models it serves; requests are sent there all the same"
            )
            continue
        for name, one in members.items():
            if one.url == url and one.model not in known:
                raise UserError(
                    f'{url} does not serve "{one.model}"; {nearest(one.model, known)}; say what it calls '
                    f"the member: --map {name}=MODEL",
                    field="--upstream",
                )
    return notes


def chooser(ensemble: LoadedEnsemble) -> Callable[[Sequence[Prompt]], list[str]]:
    """Return a function of prompts: which member answers each."""

    def choose(prompts: Sequence[Prompt]) -> list[str]:
        return ensemble.model.route([tokens_of(ensemble, prompt) for prompt in prompts])

    return choose


def tokens_of(ensemble: LoadedEnsemble, prompt: Prompt) -> list[int]:
    """Return a prompt as the members read it.

    Raises:
        RequestError: The chat template does not take the messages.
    """
    if isinstance(prompt, tuple):
        return list(prompt)
    if isinstance(prompt, str):
        return ensemble.tokens([prompt])[0]
    return ensemble.tokens([conversation(ensemble.tokenizer, prompt)])[0]


def conversation(tokenizer: PreTrainedTokenizerBase, prompt: Conversation) -> str:
    """Return messages as a text: by the tokenizer's chat template, or one below the other without one."""
    if tokenizer.chat_template is None:
        return "\n".join(str(message.get("content") or "") for message in prompt.messages)
    try:
        text: str = tokenizer.apply_chat_template(
            list(prompt.messages),
            tools=prompt.tools,
            add_generation_prompt=True,
            tokenize=False,
        )
    except Exception as error:  # noqa: BLE001 - a template raises what it likes
        raise RequestError(
            f"the chat template does not take them: {error}", field="messages"
        ) from None
    return text


def _pair(text: str, names: Sequence[str], field: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found or not value:
        expected = "http://HOST:PORT, or NAME=URL" if field == "--upstream" else "NAME=MODEL"
        raise UserError(f"found {text!r}, expected {expected}", field=field)
    if name not in names:
        raise UserError(f'no member is called "{name}"; {nearest(name, names)}', field=field)
    return name, value


def _is_url(text: str) -> bool:
    try:
        url = httpx2.URL(text)
    except (httpx2.InvalidURL, ValueError):
        return False
    return url.scheme in ("http", "https") and bool(url.host)


def _no_url(text: str) -> str:
    return f"found {text!r}, expected a URL such as http://127.0.0.1:8000"
