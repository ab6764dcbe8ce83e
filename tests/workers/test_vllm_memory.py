"""vLLM's memory beside the resident passes, on GPUs and on CPUs."""

from __future__ import annotations

import pytest

from evomerge.merge.methods import METHODS
from evomerge.workers.memory_plan import CONTEXT_BYTES, Machine, MemoryPlan, plan_memory
from evomerge.workers.model_sizes import Sizes
from evomerge.workers.placement import Sharing
from evomerge.workers.vllm_memory import KV_BYTES, VllmMemory

GB = 10**9
ALONE = Sharing()
SIZES = Sizes((16 * GB,) * 3, 0, 48 * GB, 8 * GB, 16 * GB, (GB // 2,) * 16, 16 * GB)


def plan(
    device: int | None, sharing: Sharing = ALONE, backend: str = "vllm", **arguments: object
) -> MemoryPlan:
    vllm = VllmMemory.of(backend, arguments, sharing)
    machine = Machine(512 * GB, 400 * GB, device)
    return plan_memory(SIZES, machine, sharing, [METHODS["linear"]], (), vllm)


def test_a_gpu_is_shared_with_vllm() -> None:
    alone, beside = plan(80 * GB, backend="resident"), plan(80 * GB)
    assert (alone.vllm, beside.vllm) == (0, 36 * GB)
    assert beside.share == alone.share - beside.vllm == 80 * GB - CONTEXT_BYTES - beside.vllm
    assert beside.fits
    assert beside.faults == ()
    assert beside.inputs < alone.inputs


def test_as_much_as_its_arguments_say() -> None:
    assert plan(80 * GB, gpu_memory_utilization=0.25).vllm == 20 * GB
    assert plan(None, kv_cache_memory_bytes=3 * GB).vllm == 19 * GB


def test_workers_of_a_gpu_have_a_part_each() -> None:
    found = plan(160 * GB, Sharing(2, 2))
    assert found.vllm == 36 * GB
    assert found.share == 80 * GB - CONTEXT_BYTES - found.vllm


def test_weights_of_its_own_must_fit() -> None:
    (fault,) = plan(80 * GB, gpu_memory_utilization=0.15).faults
    assert "vLLM needs 17.1 GB at least for its own copy of the weights, and has 12.0 GB" in fault
    (fault,) = plan(80 * GB, gpu_memory_utilization=0.9).faults
    assert "a worker needs" in fault


def test_on_cpus_it_is_of_the_hosts_memory() -> None:
    alone, beside = plan(None, Sharing(2, 2), backend="resident"), plan(None, Sharing(2, 2))
    assert beside.vllm == 16 * GB + KV_BYTES
    assert beside.host - alone.host == 2 * beside.vllm


@pytest.mark.parametrize("backend", [None, "resident", "hf"])
def test_other_scorers_have_none(backend: str | None) -> None:
    assert VllmMemory.of(backend, {}, Sharing()) is None


def test_arguments_that_are_no_numbers_are_vllms_to_refuse() -> None:
    assert VllmMemory.of("vllm", {"gpu_memory_utilization": "x"}, Sharing()) == VllmMemory(
        0.0, KV_BYTES
    )
