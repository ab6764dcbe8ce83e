"""Candidates as adapters for a vLLM that is not there: what it is given, and when."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file

from evomerge.candidate import Merge
from evomerge.candidate.trial import Entry, Job
from evomerge.errors import TaskError
from evomerge.merge.live import LiveModel
from evomerge.workers import WorkerSetup
from evomerge.workers.scratch import SHARED_MEMORY
from evomerge.workers.vllm_adapters import CandidateAdapters, adapter_arguments
from tests.combine.crew import adapter
from tests.conftest import Family

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers"),
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
]


class Request(NamedTuple):
    name: str
    number: int
    path: str


@dataclass
class Scorer:
    """Writes down what it is asked, and the ranks of the adapters that it finds then."""

    refusal: str = ""
    ranks: list[list[int]] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    def asked(self, module: object, split: str, metrics: object) -> tuple[list[str], bool]:
        return ["prompt"], False

    def write_for(self, module: object, asked: Sequence[tuple[Request, list[str]]]) -> list[Any]:
        if self.refusal:
            raise ValueError(self.refusal)
        found = [Path(request.path) / "adapter_model.safetensors" for request, _ in asked]
        factors = [load_file(file) for file in found]
        self.ranks.append([max(min(t.shape) for t in one.values()) for one in factors])
        self.requests += [request for request, _ in asked]
        return [{prompt: [request.number] for prompt in own} for request, own in asked]


@pytest.fixture(autouse=True)
def _no_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("vllm.lora.request")
    module.LoRARequest = Request  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm.lora.request", module)


@pytest.fixture
def live(llama_family: Family, tmp_path: Path) -> LiveModel:
    base = llama_family.base
    made = [adapter(base, tmp_path / f"adapter{n}", n, r=r) for n, r in enumerate((2, 3, 4))]
    file = made[2] / "adapter_model.safetensors"
    broken = {name: tensor.fill_(torch.nan) for name, tensor in load_file(file).items()}
    save_file(broken, file)
    return LiveModel((base, *(f"{base}+{one}" for one in made)), dtype="float32")


@pytest.fixture
def opened(live: LiveModel) -> Callable[..., CandidateAdapters]:
    def opened(scorer: Scorer, count: int = 2) -> CandidateAdapters:
        models = tuple(live.checkpoints)[: 1 + count]
        setup = SimpleNamespace(
            models=models, dtype="float32", vocabulary=None, trust_remote_code=False
        )
        return CandidateAdapters(scorer, live, setup)  # type: ignore[arg-type]

    return opened


def job(live: LiveModel, *weights: float, method: str = "task_arithmetic") -> Job:
    base, *experts = live.checkpoints
    own = {"weight": ((weights,),)}
    merge = Merge(method, tuple(experts[: len(weights)]), base, own=own, dtype="float32")
    return Job(Entry("trial", merge, 0), "search")


def test_adapters_are_written_in_one_call_and_removed_after_it(
    live: LiveModel, opened: Callable[..., CandidateAdapters]
) -> None:
    scorer = Scorer()
    adapters = opened(scorer)
    assert scorer.ranks == [[5]]  # of both experts, to see that vLLM takes them
    jobs = [job(live, 0.4, 0.0), job(live, 0.3, 0.3), job(live, 0.0, 0.0)]
    assert adapters.texts(jobs) == {n: {"prompt": [n + 2]} for n in range(3)}
    assert adapters.texts(jobs[:1]) == {0: {"prompt": [5]}}
    assert scorer.ranks[1:] == [[2, 5, 1], [2]]
    assert len({request.name for request in scorer.requests}) == 5
    folders = [Path(request.path).parent for request in scorer.requests]
    assert folders[0].parent == SHARED_MEMORY
    assert not any(folder.exists() for folder in folders)


def test_what_is_no_adapter_is_left_to_its_weights(
    live: LiveModel, opened: Callable[..., CandidateAdapters]
) -> None:
    scorer = Scorer()
    adapters = opened(scorer)
    ties = job(live, 0.4, 0.3, method="ties")
    select = replace(job(live, 0.4, 0.3), split="select")
    broken = job(live, 0.4, 0.3, 0.1)
    assert adapters.texts([ties, job(live, 0.2, 0.2), select, broken]).keys() == {1}
    assert adapters.texts([ties, select]) == {}
    assert len(scorer.ranks) == 2


def test_layers_that_vllm_does_not_take_are_told_in_one_line(
    opened: Callable[..., CandidateAdapters],
) -> None:
    with pytest.raises(
        TaskError, match="takes no adapter of these experts: no such layer; leave"
    ) as found:
        opened(Scorer(refusal="no such\n layer"))
    assert found.value.field == "scorer.args.max_loras"


@pytest.mark.parametrize(("count", "rank"), [(1, 8), (3, 16)])
def test_the_rank_is_the_least_that_holds_the_sum(
    live: LiveModel, setup: WorkerSetup, count: int, rank: int
) -> None:
    models = tuple(live.checkpoints.values())[: 1 + count]
    some = SimpleNamespace(checkpoints={one.name: one for one in models})
    asked = replace(setup, backend_arguments={"max_loras": 4})
    found = adapter_arguments(some, asked)  # type: ignore[arg-type]
    assert found == {"enable_lora": True, "max_lora_rank": rank}
    assert adapter_arguments(some, setup) == {}  # type: ignore[arg-type]
