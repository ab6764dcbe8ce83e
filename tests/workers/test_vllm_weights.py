"""A live model's weights for a vLLM that is not there: what its workers are given, by which way."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoTokenizer

from evomerge.candidate import Merge, Vocabulary
from evomerge.merge.live import LiveModel
from evomerge.merge.saving import save
from evomerge.workers import WorkerSetup
from evomerge.workers.vllm_weights import LiveWeights, WorkerWeights, serve
from tests.workers.letters import job

Tensors = dict[str, torch.Tensor]


class Head(torch.nn.Module):
    """Is packed behind the reload, as a tied head is."""

    def __init__(self) -> None:
        super().__init__()
        self.quant_method, self.packed = Method(), 0


class Method:
    def process_weights_after_loading(self, layer: Head) -> None:
        layer.packed += 1


class Runner:
    """Holds what it is given, as vLLM's model runner does."""

    model_config = "config"

    def __init__(self) -> None:
        self.held: Tensors = {}
        self.model = torch.nn.Sequential(Head())

    def reload_weights(self, *, weights_iterator: Iterator[tuple[str, torch.Tensor]]) -> None:
        kept = list(weights_iterator)  # layer by layer: nothing that is given may change meanwhile
        self.held = {name: tensor.clone() for name, tensor in kept}

    def get_model(self) -> torch.nn.Module:
        return self.model


class Llm:
    """An engine of one process."""

    def __init__(self) -> None:
        self.worker = LiveWeights()
        self.worker.model_runner, self.worker.device = Runner(), torch.device("cpu")
        self.calls: list[str] = []

    @property
    def held(self) -> Tensors:
        return self.worker.model_runner.held

    def collective_rpc(self, name: str, args: tuple[Any, ...] = ()) -> list[Any]:
        self.calls.append(name)
        return [getattr(self.worker, name)(*args)]


@pytest.fixture(autouse=True)
def ended(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Reloads that were ended because they broke off."""
    found: list[Any] = []
    layers = "vllm.model_executor.layers.vocab_parallel_embedding"
    reload = "vllm.model_executor.model_loader.reload"
    for name, values in (
        (layers, {"ParallelLMHead": Head, "UnquantizedEmbeddingMethod": Method}),
        (reload, {"finalize_layerwise_reload": lambda *given: found.append(given)}),
    ):
        module = ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
    return found


@pytest.fixture
def live(setup: WorkerSetup) -> LiveModel:
    return LiveModel(setup.models, dtype="float32")


def merge(setup: WorkerSetup, weight: float, **changes: Any) -> Merge:
    return job(setup, weight, **changes).entry.candidate  # type: ignore[return-value]


def saved(candidate: Merge, folder: Path) -> Tensors:
    save(candidate, folder)
    return load_file(folder / "model.safetensors")


def equal(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("apart", [False, True])
def test_what_is_held_is_what_is_saved(
    setup: WorkerSetup, live: LiveModel, tmp_path: Path, apart: bool
) -> None:
    llm, weights = Llm(), WorkerWeights(live, setup, apart=apart)
    for number, weight in enumerate((0.3, 0.9, 0.3)):
        live.write(merge(setup, weight))
        weights.write(llm)  # type: ignore[arg-type]
        assert llm.worker.written_version() == weights.version == number + 1
        assert equal(llm.held, saved(merge(setup, weight), tmp_path / str(number)))
    assert set(llm.calls) == ({"open_merges", "write_merge"} if apart else {"write_tensors"})
    assert llm.calls.count("open_merges") == apart
    assert llm.worker.model_runner.model[0].packed == 3


def test_random_task_vectors_are_the_same_by_both_ways(setup: WorkerSetup, live: LiveModel) -> None:
    near, far = Llm(), Llm()
    for noise in (7, None):
        (live if noise is None else live.randomised(noise)).write(merge(setup, 0.8))
        WorkerWeights(live, setup).write(near)  # type: ignore[arg-type]
        WorkerWeights(live, setup, apart=True).write(far)  # type: ignore[arg-type]
        assert equal(near.held, far.held)
        assert near.worker.merge_version == far.worker.merge_version
    assert far.worker.merge_version == 2


def test_tokens_that_are_added_are_held_by_both_ways(setup: WorkerSetup, tmp_path: Path) -> None:
    vocabulary = Vocabulary("union", pad_to_multiple_of=8)
    setup = replace(setup, vocabulary=vocabulary)
    live = LiveModel(setup.models, dtype="float32", vocabulary=vocabulary)
    candidate = merge(setup, 0.5, vocabulary=vocabulary)
    live.write(candidate)
    for apart in (False, True):
        llm = Llm()
        WorkerWeights(live, setup, apart=apart).write(llm)  # type: ignore[arg-type]
        assert equal(llm.held, saved(candidate, tmp_path / str(apart)))
        assert len(llm.held["model.embed_tokens.weight"]) == 264


def test_weights_that_break_off_have_no_version(setup: WorkerSetup, live: LiveModel, ended) -> None:
    def broken() -> Iterator[tuple[str, torch.Tensor]]:
        yield "model.norm.weight", torch.ones(3)
        raise MemoryError

    llm = Llm()
    live.write(merge(setup, 0.3))
    WorkerWeights(live, setup).write(llm)  # type: ignore[arg-type]
    with pytest.raises(MemoryError):
        llm.worker.write_tensors(2, broken())
    assert llm.worker.written_version() is None
    assert ended == [(llm.worker.model_runner.model, "config")]
    WorkerWeights(live, setup).write(llm)  # type: ignore[arg-type]
    assert llm.worker.written_version() == 1


class Scorer:
    """Notes with what vLLM is started, and what stands in its folder then."""

    def __init__(self, **arguments: Any) -> None:
        self.arguments, self.started, self.apart = arguments, {}, None

    def serve(self, module: object, weights: WorkerWeights, defaults: dict[str, Any]) -> None:
        folder = defaults["model"]
        self.config = AutoConfig.from_pretrained(folder)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.started, self.apart = {**defaults, **self.arguments}, weights._apart
        assert not list(Path(folder).glob("*.safetensors"))


def test_an_engine_is_started_without_weights(setup: WorkerSetup, live: LiveModel) -> None:
    scorer = Scorer()
    serve(scorer, live, replace(setup, backend="vllm"))  # type: ignore[arg-type]
    assert (scorer.config.vocab_size, len(scorer.tokenizer)) == (259, 259)
    assert scorer.started["load_format"] == "dummy"
    assert scorer.started["dtype"] == "float32"
    assert scorer.started["worker_extension_cls"] == "evomerge.workers.vllm_weights.LiveWeights"
    assert not scorer.apart
    assert "gpu_memory_utilization" not in scorer.started


def test_several_processes_merge_by_themselves(setup: WorkerSetup, live: LiveModel) -> None:
    scorer = Scorer(tensor_parallel_size=2)
    serve(scorer, live, replace(setup, backend="vllm"))  # type: ignore[arg-type]
    assert scorer.apart
    assert scorer.started["distributed_executor_backend"] == "mp"


def test_workers_of_a_gpu_share_it(setup: WorkerSetup, live: LiveModel) -> None:
    sharing = SimpleNamespace(device=2)
    scorer = Scorer()
    serve(scorer, live, replace(setup, backend="vllm", device="cuda", sharing=sharing))  # type: ignore[arg-type]
    assert 0 < scorer.started["gpu_memory_utilization"] < 0.25
    assert "enforce_eager" not in scorer.started
