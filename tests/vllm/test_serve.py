"""A saved ensemble before a real vLLM: the commands of its card, a real OpenAI client, PEFT as the reference.

`make test-vllm` runs it over a tiny family. `EVOMERGE_ENSEMBLE=DIR` names a saved ensemble of adapters in
its place, and `EVOMERGE_PROMPTS=FILE` a JSON list of prompts for it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import openai
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from evomerge.combine.folder import save_ensemble
from evomerge.combine.loaded import LoadedEnsemble, load
from evomerge.combine.proxy import ANSWERED_BY
from tests.combine.crew import PROMPTS, adapter, alone, ensemble
from tests.conftest import save_family

pytestmark = [
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: make test-vllm"),
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers", "ignore::UserWarning:peft"),
]
TOKENS = 24
TIE = 1e-3
"""Logits that differ by less are equal, for whom adds in another order."""
STARTING_SECONDS = 600.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved ensemble of a base and its adapters."""
    if named := os.environ.get("EVOMERGE_ENSEMBLE"):
        return Path(named).resolve()
    config = LlamaConfig(
        vocab_size=259,
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        dtype="float32",
    )
    where = tmp_path_factory.mktemp("vllm")
    base = save_family(where, LlamaForCausalLM, config, experts=0).base
    members = {"base": alone(base)}
    for seed, name in enumerate(("alpha", "beta", "gamma")):
        made = adapter(base, where / name, seed, r=4, target_modules=["q_proj", "up_proj"])
        members[name] = alone(f"{base}+{made}")
    save_ensemble(ensemble(base, members), where / "crew")
    return where / "crew"


@pytest.fixture(scope="module")
def prompts() -> list[str]:
    named = os.environ.get("EVOMERGE_PROMPTS")
    return list(PROMPTS) if named is None else json.loads(Path(named).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def opened(folder: Path) -> LoadedEnsemble:
    return load(folder, dtype="float32")


@pytest.fixture(scope="module")
def url(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The proxy, and vLLM behind it, as the card says."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```bash\n(.*?)```", card, re.DOTALL)
    behind, proxy = block.splitlines()
    logs = tmp_path_factory.mktemp("logs")
    served, proxied = free_port(), free_port()
    behind += f" --port {served} --dtype float32 --enforce-eager"
    proxy = re.sub(r"http://127\.0\.0\.1:\d+", f"http://127.0.0.1:{served}", proxy)
    with (
        running(behind, folder, served, logs / "vllm"),
        running(f"{proxy} --port {proxied} --name crew", folder, proxied, logs / "proxy"),
    ):
        yield f"http://127.0.0.1:{proxied}/v1"


@pytest.fixture
def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=url, api_key="none", max_retries=0)


def test_each_prompt_goes_to_the_member_that_the_router_names(
    client: openai.OpenAI, opened: LoadedEnsemble, prompts: Sequence[str]
) -> None:
    routes = opened.route(prompts)
    assert len(set(routes)) > 2
    for prompt, member in zip(prompts, routes, strict=True):
        said = client.completions.with_raw_response.create(
            model="crew", prompt=prompt, max_tokens=1, temperature=0
        )
        assert said.headers[ANSWERED_BY] == member
        assert said.parse().model == member  # what vLLM calls the adapter
    messages = [{"role": "user", "content": "What is it?"}]
    text = opened.tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    chat = client.chat.completions.create(model="crew", messages=messages, max_tokens=4)
    assert [chat.model] == opened.route([text])
    assert [one.id for one in client.models.list()] == ["crew", *opened.names]


def test_what_streams_is_the_same_text(client: openai.OpenAI, prompts: Sequence[str]) -> None:
    for prompt in prompts[:5]:
        asked = {"model": "crew", "prompt": prompt, "max_tokens": TOKENS, "temperature": 0}
        pieces = [one.choices[0].text for one in client.completions.create(**asked, stream=True)]
        assert len(pieces) > 1
        assert "".join(pieces) == client.completions.create(**asked).choices[0].text


def test_greedy_answers_are_those_of_transformers(
    client: openai.OpenAI, opened: LoadedEnsemble, folder: Path, prompts: Sequence[str]
) -> None:
    """Token for token, in float32; where they part, two tokens are equally likely."""
    references, other = References(folder), []
    assert len(prompts) >= 20
    for prompt, member in zip(prompts, opened.route(prompts), strict=True):
        (tokens,) = opened.tokens([prompt])
        answer = client.completions.create(
            model="crew",
            prompt=tokens,
            max_tokens=TOKENS,
            temperature=0,
            extra_body={"return_token_ids": True},
        )
        found = list(answer.choices[0].model_extra["token_ids"])
        expected = references.written(member, tokens)
        if found == expected:
            continue
        at = next(
            n for n in range(TOKENS) if found[n : n + 1] != expected[n : n + 1]
        )  # both go on, or one ended
        logits = references.next_logits(member, [*tokens, *expected[:at]])
        ends = references.ends
        pair = [each[at] if at < len(each) else ends[0] for each in (found, expected)]
        gap = float((logits[pair[0]] - logits[pair[1]]).abs())
        other.append((prompt, member, at, gap))
    print(f"{len(prompts) - len(other)} of {len(prompts)} answers equal; others: {other}")
    assert [one for one in other if one[-1] > TIE] == []
    assert len(other) <= len(prompts) // 10


def test_of_two_hundred_at_once_none_is_lost_or_misrouted(
    url: str, opened: LoadedEnsemble, prompts: Sequence[str]
) -> None:
    asked = [prompts[number % len(prompts)] for number in range(200)]
    expected = opened.route(asked)

    async def ask(clients: openai.AsyncOpenAI, number: int) -> tuple[str, str]:
        body = {"model": "crew", "prompt": asked[number], "max_tokens": 8, "temperature": 0}
        if number % 2:
            answer = await clients.completions.create(**body)
            return answer.model, answer.choices[0].text
        stream = await clients.completions.create(**body, stream=True)
        pieces = [piece async for piece in stream]
        return pieces[0].model, "".join(piece.choices[0].text for piece in pieces if piece.choices)

    async def all_at_once() -> list[tuple[str, str]]:
        options = {"base_url": url, "api_key": "none", "max_retries": 0, "timeout": 600}
        async with openai.AsyncOpenAI(**options) as clients:
            return await asyncio.gather(*(ask(clients, number) for number in range(200)))

    began = time.perf_counter()
    answers = asyncio.run(all_at_once())
    print(f"200 requests of 8 tokens in {time.perf_counter() - began:.1f} s")
    assert [model for model, _ in answers] == expected
    assert all(text for _, text in answers)


class References:
    """Members as PEFT has them, in float32: the base, with an adapter or without."""

    def __init__(self, folder: Path) -> None:
        combiner = json.loads((folder / "combiner.json").read_text(encoding="utf-8"))
        base = folder / combiner["base"]["path"]
        self._model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        self._adapters = {}
        for place, one in enumerate(combiner["members"]):
            if "adapter" not in one:
                continue
            self._adapters[one["name"]], where = str(place), folder / one["adapter"]
            if isinstance(self._model, PeftModel):
                self._model.load_adapter(where, adapter_name=str(place))
            else:
                self._model = PeftModel.from_pretrained(self._model, where, adapter_name=str(place))
        self._model.eval()
        ends = self._model.generation_config.eos_token_id
        own = AutoTokenizer.from_pretrained(folder).eos_token_id  # vLLM stops there, too
        self.ends = [*(ends if isinstance(ends, list) else [ends]), own]

    @torch.no_grad()
    def written(self, member: str, tokens: list[int]) -> list[int]:
        """Continue a prompt greedily, up to the end of the text and with it."""
        with self._as(member):
            found = self._model.generate(
                input_ids=torch.tensor([tokens]),
                max_new_tokens=TOKENS,
                do_sample=False,
                eos_token_id=self.ends,
            )
        return found[0, len(tokens) :].tolist()

    @torch.no_grad()
    def next_logits(self, member: str, tokens: list[int]) -> torch.Tensor:
        with self._as(member):
            return self._model(input_ids=torch.tensor([tokens])).logits[0, -1]

    @contextmanager
    def _as(self, member: str) -> Iterator[None]:
        if member in self._adapters:
            self._model.set_adapter(self._adapters[member])
            yield
        else:
            with self._model.disable_adapter():
                yield


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def running(line: str, folder: Path, port: int, log: Path) -> Iterator[None]:
    """Run a command of this environment in a folder, from when its port answers until all is done."""
    name, *arguments = shlex.split(line)
    program = [Path(__file__).with_name("program.py")] if name == "vllm" else ["-m", name]
    settings = {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_TARGET_DEVICE": "cpu",
        "VLLM_CPU_KVCACHE_SPACE": "1",
    }
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, *program, *arguments],
            cwd=folder,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**settings, **os.environ},
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + STARTING_SECONDS
            while not answers(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(
                        f"{line} does not serve:\n{log.read_text(errors='replace')[-3000:]}"
                    )
                time.sleep(0.5)
            yield
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            with suppress(ProcessLookupError):  # what it started, too
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as connection:
            connection.settimeout(5)
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return b" 200 " in connection.recv(64)
    except OSError:
        return False
