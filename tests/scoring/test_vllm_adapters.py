"""An engine that holds the base for adapters, and a live model's weights for everything else: a stand-in."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from evomerge.inference import Collapsed
from evomerge.inference.generation import Prompt
from evomerge.scoring.live_vllm import LiveEngine
from evomerge.scoring.vllm_engine import BASE, LiveVllm


@dataclass
class Engine:
    """Notes what it is asked for, and continues each prompt by the number of its adapter."""

    version: int = 3
    held: int | None = None
    did: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        config = SimpleNamespace(max_model_len=64)
        self.llm_engine = SimpleNamespace(model_config=config, add_lora=self.did.append)

    def write(self, llm: Engine) -> None:
        self.held = self.version
        self.did.append("weights")

    def write_base(self, llm: Engine) -> None:
        self.held = BASE
        self.did.append("base")

    def reset_prefix_cache(self) -> bool:
        return True

    def collective_rpc(self, name: str) -> list[int | None]:
        assert name == "written_version"
        return [self.held]

    def generate(self, asked: list[Any], parameters: list[Any], **options: Any) -> list[Any]:
        adapters = options["lora_request"] or [0] * len(asked)
        return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=[one])]) for one in adapters]


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def vllm(engine: Engine) -> LiveVllm:
    return LiveVllm(engine, engine)  # type: ignore[arg-type]


def test_base_and_weights_take_each_others_place(engine: Engine, vllm: LiveVllm) -> None:
    assert vllm.follow()
    assert not vllm.follow()
    vllm.hold_base([1, 2])  # type: ignore[list-item]
    vllm.hold_base([3])  # type: ignore[list-item]
    assert vllm.generate([[5], [5]], [{}, {}], [1, 2]) == [[1], [2]]  # type: ignore[list-item]
    assert vllm.follow()
    assert vllm.generate([[5]], [{}]) == [[0]]  # type: ignore[list-item]
    assert engine.did == ["weights", "base", 1, 2, 3, "weights"]


def test_adapters_on_other_weights_are_an_error(engine: Engine, vllm: LiveVllm) -> None:
    vllm.hold_base([1])  # type: ignore[list-item]
    engine.held = 3
    with pytest.raises(RuntimeError, match=r"weights of version \[3\], expected -1"):
        vllm.generate([[5]], [{}], [1])  # type: ignore[list-item]
    vllm.follow()
    with pytest.raises(RuntimeError, match=r"weights of version \[3\], expected -1"):
        vllm.generate([[5]], [{}], [1])  # type: ignore[list-item]


def test_texts_that_are_given_are_not_written_again() -> None:
    prompts = [Prompt([n], SimpleNamespace(strings=()), 16, False) for n in (1, 2, 1)]  # type: ignore[arg-type]
    engine = LiveEngine.__new__(LiveEngine)  # nothing of a module is needed
    engine.texts = {prompt.key: [7, 8 + prompt.tokens[0]] for prompt in prompts}
    assert engine.write(prompts) == [[7, 9], [7, 10], [7, 9]]
    stuck = [Prompt([n], prompts[0].rule, 16, False) for n in range(16)]
    engine.texts = {prompt.key: [4] * 16 for prompt in stuck}
    with pytest.raises(Collapsed, match="continued by token 4 over and over"):
        engine.write(stuck)
