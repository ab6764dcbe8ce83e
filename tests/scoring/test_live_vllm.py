"""Texts by a vLLM that is not there: whatever it stops at, they are those of the module's own passes."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from evomerge.errors import TaskError
from evomerge.inference import Collapsed, NotFinite
from evomerge.inference.engine import Engine
from evomerge.inference.generation import Prompt
from evomerge.scoring import Scorer, VllmScorer, live_vllm, open_backend
from evomerge.scoring.live_vllm import LiveEngine
from evomerge.scoring.vllm_engine import LiveVllm


@dataclass
class Llm:
    """Continues prompts by a module of transformers, and stops where it likes."""

    module: Any
    most: int = 1000  # tokens, after which it stops without being asked
    version: int = 1
    asked: list[Any] = field(default_factory=list)
    written: list[int] = field(default_factory=list)
    max_length: int = 256

    def __post_init__(self) -> None:
        config = SimpleNamespace(max_model_len=self.max_length)
        self.llm_engine = SimpleNamespace(model_config=config)

    def write(self, llm: Llm) -> None:
        self.written.append(self.version)

    def reset_prefix_cache(self) -> bool:
        return True

    def collective_rpc(self, name: str) -> list[int]:
        return [self.written[-1]]

    def generate(self, asked: list[Any], parameters: list[Any], **options: Any) -> list[Any]:
        self.asked += parameters
        found = [
            self._continued(one["prompt_token_ids"], own)
            for one, own in zip(asked, parameters, strict=True)
        ]
        return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=one)]) for one in found]

    def _continued(self, tokens: list[int], asked: Any) -> list[int]:
        assert asked.temperature == 0
        found = self.module.generate(
            torch.tensor([tokens]),
            max_new_tokens=min(self.most, asked.max_tokens),
            eos_token_id=asked.stop_token_ids,
            do_sample=False,
        )
        return found[0, len(tokens) :].tolist()


@pytest.fixture(autouse=True)
def _no_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("vllm")
    module.SamplingParams = SimpleNamespace  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setattr(live_vllm, "check_vllm", lambda arguments: None)


@pytest.fixture
def own(llama) -> Engine:
    return Engine(llama.module, llama.tokenizer)


@pytest.fixture
def live(llama) -> LiveEngine:
    return LiveEngine(llama.module, llama.tokenizer)


def prompts(engine: Engine, *until: str, count: int = 9, limit: int = 20) -> list[Prompt]:
    texts = [f"Question: red {n % 9} or blue" for n in range(count)]
    rule = engine.encoder.stopping.rule(until)
    return [Prompt(one, rule, limit, False) for one in engine.encoder.prompts(texts)]


def connect(live: LiveEngine, llm: Llm) -> Llm:
    live.vllm = LiveVllm(llm, llm)  # type: ignore[arg-type]
    return llm


@pytest.mark.parametrize("most", [1000, 3], ids=["late", "early"])
@pytest.mark.parametrize("until", [(), ("\n", "ab", "}"), ("e", "s ")])
def test_texts_end_where_those_of_our_own_passes_end(llama, own, live, until, most) -> None:
    llm = connect(live, Llm(llama.module, most))
    asked = prompts(own, *until)
    with torch.inference_mode():
        expected = own.write(asked)
        assert live.write([*asked, asked[0]]) == [*expected, expected[0]]
    assert len({tuple(one) for one in expected}) > 5
    assert len({len(one) for one in expected}) > 1 or not until
    assert set(llm.asked[0].stop) >= set(until)
    assert len(llm.asked) >= len(asked)


def test_weights_are_written_when_they_changed_and_something_is_continued(llama, live) -> None:
    llm = connect(live, Llm(llama.module))
    with torch.inference_mode():
        live.write([])
        assert llm.written == []
        for version in (1, 1, 4, 4):
            llm.version = version
            live.write(prompts(live, count=2))
    assert llm.written == [1, 4]


def test_weights_that_are_nan_have_no_texts(llama, live, monkeypatch) -> None:
    connect(live, Llm(llama.module))
    norm = llama.module.model.norm.weight
    monkeypatch.setattr(norm, "data", torch.full_like(norm, torch.nan))
    with torch.inference_mode(), pytest.raises(NotFinite):
        live.write(prompts(live, count=2))


def test_a_model_that_says_the_same_over_and_over_is_told(llama, live, monkeypatch) -> None:
    llm = connect(live, Llm(llama.module))
    monkeypatch.setattr(llm, "_continued", lambda tokens, asked: [9] * asked.max_tokens)
    asked = [
        Prompt([n + 5, 6, 7], one.rule, 20, False) for n, one in enumerate(prompts(live, count=16))
    ]
    with torch.inference_mode(), pytest.raises(Collapsed, match="continued by token 9"):
        live.write(asked)


def test_a_repetition_penalty_is_vllms_too(llama, live, monkeypatch) -> None:
    llm = connect(live, Llm(llama.module))
    monkeypatch.setattr(llama.module.generation_config, "repetition_penalty", 1.3)
    with torch.inference_mode():
        expected = Engine(llama.module, llama.tokenizer).write(prompts(live))
        assert live.write(prompts(live)) == expected
    assert {one.repetition_penalty for one in llm.asked} == {1.3}


@pytest.mark.parametrize("reason", ["ngrams", "length", "none"])
def test_what_vllm_would_continue_otherwise_is_left_to_our_own_passes(
    llama, live, monkeypatch, reason
) -> None:
    asked = prompts(live)
    longest = max(len(one.tokens) for one in asked) + 20
    llm = connect(live, Llm(llama.module, max_length=longest - (reason == "length")))
    if reason == "ngrams":
        monkeypatch.setattr(llama.module.generation_config, "no_repeat_ngram_size", 2)
    with torch.inference_mode():
        assert live.write(asked) == Engine(llama.module, llama.tokenizer).write(asked)
    assert bool(llm.asked) == (reason == "none")


@pytest.fixture
def llm(llama) -> Llm:
    return Llm(llama.module)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, llm: Llm) -> list[Any]:
    """With which arguments engines were started."""
    found: list[Any] = []

    def start(arguments: Any, device: str) -> Llm:
        assert device == "cpu"
        found.append(arguments)
        return llm

    monkeypatch.setattr(live_vllm, "start", start)
    return found


def test_scores_are_the_resident_scorers(llama, llm, started) -> None:
    items = llama.items("written", "choice")
    scorer = open_backend(
        "vllm", items, {"max_num_seqs": 4}, {"batch_tokens": 300, "device": "cpu"}
    )
    assert isinstance(scorer, VllmScorer)
    scorer.serve(llama.module, llm, {"seed": 0, "max_num_seqs": 8})  # type: ignore[arg-type]
    metrics = {"written": ("exact_match,whole", "gold_loglikelihood"), "choice": ("acc",)}
    found = scorer.score(llama.module, "search", metrics)
    assert found == Scorer(items, batch_tokens=300).score(llama.module, "search", metrics)
    assert llm.written == [1]
    (arguments,) = started
    longest = max(
        len(one.tokens) + one.limit for one in scorer.asked(llama.module, "search", metrics)[0]
    )
    assert arguments == {"seed": 0, "max_num_seqs": 4, "max_model_len": longest}


def test_an_engine_that_is_too_short_for_the_items_is_refused(llama, llm, started) -> None:
    scorer = VllmScorer(llama.items("written"), max_model_len=30)
    with pytest.raises(
        TaskError, match=r"scorer.args.max_model_len: found 30, expected \d+ or more"
    ):
        scorer.serve(llama.module, llm, {})  # type: ignore[arg-type]
    assert started == []


def test_nothing_is_started_where_nothing_is_written(llama, llm, started) -> None:
    VllmScorer(llama.items("choice")).serve(llama.module, llm, {})  # type: ignore[arg-type]
    assert started == []
