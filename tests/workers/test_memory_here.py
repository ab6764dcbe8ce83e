"""What a worker plans with on its node and its device; a GPU's driver is played."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from evomerge.merge.checkpoint import open_checkpoint
from evomerge.tasks import PromptStyle, SplitPlan
from evomerge.workers import Assignment, memory_here
from evomerge.workers.memory_plan import CONTEXT_BYTES
from evomerge.workers.sharing import Sharing

GB = 10**9
ASSIGNMENT = Assignment((), "float32", (), None, SplitPlan({}), PromptStyle(), methods=("ties",))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A GPU's memory; what is changed in it, the driver says from then on."""
    state = {"total": 80 * GB, "free": 80 * GB, "own": 0}
    monkeypatch.setattr(memory_here, "gpu_memory", lambda _: (state["total"], state["free"]))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: state["own"])
    return state


def test_a_worker_on_a_cpu_plans_with_the_host(llama_family: Any) -> None:
    opened = {model: open_checkpoint(model) for model in llama_family.models}
    plan = memory_here.memory_here(opened, ASSIGNMENT)
    assert not plan.on_gpu
    assert plan.inputs == plan.wanted > 0
    shared = memory_here.memory_here(opened, replace(ASSIGNMENT, sharing=Sharing(4, 4)))
    assert shared.passes == plan.passes // 4


def test_a_worker_on_a_gpu_has_its_share_and_never_more_than_is_free(
    llama_family: Any, gpu: dict[str, int]
) -> None:
    opened = {model: open_checkpoint(model) for model in llama_family.models}
    on_gpu = replace(ASSIGNMENT, device="cuda")
    assert memory_here.memory_here(opened, on_gpu).share == 80 * GB - CONTEXT_BYTES
    halves = replace(on_gpu, sharing=Sharing(node=2, device=2))
    gpu.update(free=45 * GB, own=5 * GB)  # the other one holds 30 GB
    assert memory_here.memory_here(opened, halves).share == 40 * GB - CONTEXT_BYTES
    gpu.update(free=20 * GB, own=5 * GB)  # and another program 25 GB
    assert memory_here.memory_here(opened, halves).share == 25 * GB - CONTEXT_BYTES


def test_workers_on_one_gpu_cannot_take_each_others_memory(
    monkeypatch: pytest.MonkeyPatch, gpu: dict[str, int]
) -> None:
    limits: list[float] = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", limits.append)
    memory_here.keep_to_share(replace(ASSIGNMENT, device="cuda"))
    memory_here.keep_to_share(replace(ASSIGNMENT, sharing=Sharing(2, 2)))
    assert limits == []
    memory_here.keep_to_share(replace(ASSIGNMENT, device="cuda", sharing=Sharing(2, 2)))
    assert limits == [0.5 - CONTEXT_BYTES / (80 * GB)]
