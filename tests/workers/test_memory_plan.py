"""The memory plan, with the numbers of real models and machines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from evomerge.candidate import Merge
from evomerge.config import Campaign
from evomerge.merge import fused, fused_gpu
from evomerge.merge.checkpoint import open_checkpoint
from evomerge.merge.live import LiveModel
from evomerge.merge.methods import METHODS
from evomerge.tasks import PromptStyle, SplitPlan
from evomerge.workers import WorkerSetup, memory_plan
from evomerge.workers.memory_plan import (
    CONTEXT_BYTES,
    Machine,
    MemoryPlan,
    keep_to_share,
    plan_memory,
    plan_memory_here,
)
from evomerge.workers.model_sizes import Sizes, sizes_of
from evomerge.workers.placement import Sharing
from tests.combine.crew import adapter

GB = 10**9
SETUP = WorkerSetup((), "float32", (), None, SplitPlan({}), PromptStyle(), methods=("ties",))
H100 = int(79.2 * 2**30)  # what CUDA says that an "80 GB" card has
RTX4090 = int(23.6 * 2**30)
HOST = Machine(host=137 * GB, host_free=128 * GB)
TIES, ARITHMETIC, LINEAR = METHODS["ties"], METHODS["task_arithmetic"], METHODS["linear"]

# Numbers of the model, of its embeddings, and of a layer's widest matrix.
MISTRAL_7B = 7_241_732_096, 32_000 * 4096, 14_336 * 4096
LLAMA_1B = 1_235_814_400, 128_256 * 2048, 8192 * 2048


def family(model: tuple[int, ...], experts: int, stored: int = 2, live: int = 2) -> Sizes:
    numbers, *tensors = model
    models = (stored * numbers,) * (1 + experts)
    deltas = experts * numbers
    return Sizes(models, 0, sum(models), numbers, deltas, tuple(tensors), live * numbers)


def gpu(bytes_: int, sizes: Sizes, sharing: Sharing | None = None, method=TIES) -> MemoryPlan:
    machine = replace(HOST, device=bytes_)
    return plan_memory(sizes, machine, sharing or Sharing(), [method])


def test_two_experts_of_7b_are_resident_on_80_gb() -> None:
    plan = gpu(H100, family(MISTRAL_7B, 2))
    assert plan.weights == pytest.approx(14.5 * GB, rel=0.01)
    assert plan.inputs == plan.wanted == pytest.approx(43.5 * GB, rel=0.01)
    assert plan.streamed == 0
    assert plan.faults == ()
    assert plan.derived == 0  # 116 GB of orders are no reason to shrink the passes
    taken = plan.weights + plan.inputs + plan.workspace + plan.passes + CONTEXT_BYTES
    assert taken == H100
    assert plan.passes > 20 * GB


def test_the_shipped_template_claims_what_the_plan_says() -> None:
    path = Path(__file__).parents[2] / "search_spaces" / "seven_billion.yaml"
    campaign, text = Campaign.load(path), path.read_text()
    assert campaign.models.dtype == "bfloat16"
    assert campaign.workers.gpus == campaign.workers.count == 1
    sizes = family(MISTRAL_7B, len(campaign.models.experts))
    methods = [METHODS[name] for name in campaign.space.method]
    plan = plan_memory(sizes, replace(HOST, device=H100), Sharing(), methods)
    assert (plan.faults, plan.streamed) == ((), 0)
    assert (
        f"{plan.weights / GB:.1f} GB a model: the live merge, and all three models as stored"
        in text
    )
    assert f"maps {plan.files / GB:.1f} GB of files" in text
    assert f"the {plan.passes / GB:.0f} GB that are left" in text


def test_six_experts_of_7b_stream_what_80_gb_cannot_hold() -> None:
    plan = gpu(H100, family(MISTRAL_7B, 6))
    assert plan.wanted == pytest.approx(101.4 * GB, rel=0.01)  # seven models, stored once each
    assert plan.inputs + plan.streamed == plan.wanted
    assert 45 * GB < plan.inputs < 55 * GB
    assert plan.passes > 12 * GB
    assert (
        plan.workspace == 4 * (1 + 8) * 32_000 * 4096
    )  # one task vector at a time of the embeddings
    assert plan.faults == ()  # the files are mapped by a host of 128 GB
    assert plan.from_disk == 0
    assert plan.host + plan.files < 128 * GB


def test_a_host_too_small_for_the_files_reads_them_from_disk_and_says_so() -> None:
    small = Machine(host=64 * GB, host_free=60 * GB, device=H100)
    plan = plan_memory(family(MISTRAL_7B, 6), small, Sharing(), [TIES])
    assert plan.from_disk == plan.host + plan.files - 60 * GB
    (fault,) = plan.faults
    assert "the models' files (101.4 GB) do not fit into the memory that is left (56.8 GB)" in fault
    assert "are read from disk for every candidate" in fault


def test_eight_workers_on_eight_gpus_have_one_each() -> None:
    alone = gpu(H100, family(MISTRAL_7B, 2))
    plan = gpu(H100, family(MISTRAL_7B, 2), Sharing(node=8, device=1))
    for field in ("share", "weights", "inputs", "derived", "streamed", "passes"):
        assert getattr(plan, field) == getattr(alone, field), field
    assert plan.host == 8 * alone.host
    assert plan.files == alone.files  # mapped once for all of them
    assert plan.faults == ()


def test_workers_of_gpus_share_a_part_of_the_host_for_linear_algebra() -> None:
    plan = gpu(H100, family(LLAMA_1B, 2), Sharing(node=8, device=1))
    assert plan.kept_on_host == HOST.host_free // 4 // 8
    small = Machine(host=64 * GB, host_free=plan.host + plan.files + 8 * GB, device=H100)
    few = plan_memory(family(LLAMA_1B, 2), small, Sharing(node=8, device=1), [TIES])
    assert few.kept_on_host == GB
    assert plan_memory(family(MISTRAL_7B, 6), small, Sharing(), [TIES]).kept_on_host == 0
    assert plan_memory(family(LLAMA_1B, 2), HOST, Sharing(), [TIES]).kept_on_host == 0  # on CPUs


def test_two_workers_on_one_gpu_share_its_memory() -> None:
    plan = gpu(H100, family(MISTRAL_7B, 2), Sharing(node=2, device=2))
    assert plan.share == H100 // 2 - CONTEXT_BYTES
    taken = plan.weights + plan.kept + plan.workspace + plan.passes + CONTEXT_BYTES
    assert taken < H100 // 2
    assert taken == pytest.approx(H100 // 2, rel=0.05)  # but for what streams, tensor by tensor
    assert plan.streamed > 20 * GB
    assert plan.faults == ()
    sixth = gpu(H100, family(MISTRAL_7B, 2), Sharing(node=6, device=6))
    (fault,) = sixth.faults
    assert "a worker needs" in fault
    assert "let fewer than 6 workers share a GPU (workers.gpus: 1)" in fault


def test_six_experts_of_1b_on_24_gb() -> None:
    plan = gpu(RTX4090, family(LLAMA_1B, 6), method=ARITHMETIC)
    assert plan.wanted == pytest.approx(17.3 * GB, rel=0.01)
    # The embeddings are a fifth of the model, and TIES is among the baselines of every campaign.
    assert plan.workspace == 4 * (1 + 8) * 128_256 * 2048
    assert 0 < plan.streamed < 0.6 * plan.wanted
    assert plan.faults == ()
    assert gpu(RTX4090, family(LLAMA_1B, 3), method=ARITHMETIC).streamed == 0
    small = gpu(RTX4090, family((134_515_008, 49_152 * 576, 1536 * 576), 4))
    assert small.streamed == 0
    assert small.derived == 4 * 134_515_008 * TIES.derived_bytes


def test_models_stored_in_float32_take_twice_as_much() -> None:
    half, full = (gpu(H100, family(LLAMA_1B, 3, stored=b, live=b)) for b in (2, 4))
    assert full.inputs == 2 * half.inputs
    assert full.weights == 2 * half.weights


def test_a_model_that_no_gpu_holds_is_said_to_be_too_large() -> None:
    (fault,) = gpu(RTX4090, family((70_000_000_000, 128_256 * 8192, 28_672 * 8192), 2)).faults[:1]
    assert fault.startswith("a worker needs 1")
    assert "take a larger GPU, or models.dtype: bfloat16, or workers.gpus: 2" in fault


def test_on_cpus_task_vectors_are_kept_beside_views_of_the_files() -> None:
    sizes = family(LLAMA_1B, 2, stored=4, live=4)
    plan = plan_memory(sizes, HOST, Sharing(4, 4), [ARITHMETIC])
    assert plan.wanted == 2 * 4 * LLAMA_1B[0]
    assert plan.inputs == 32 * GB // 4 < plan.wanted
    assert plan.derived == 0
    assert plan_memory(sizes, HOST, Sharing(4, 4), [LINEAR]).kept == 0  # views, nothing else
    assert plan.passes == HOST.host // 2 // 4
    ordered = plan_memory(sizes, HOST, Sharing(), [TIES])
    assert ordered.derived == min(2 * 12 * LLAMA_1B[0], 32 * GB - ordered.inputs)


def test_what_is_merged_in_one_pass_keeps_no_task_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "available", lambda: True)
    sizes = family(LLAMA_1B, 2, stored=4, live=4)
    plans = {
        name: plan_memory(sizes, HOST, Sharing(), [METHODS[name]], one_pass=True)
        for name in ("linear", "task_arithmetic", "dare_ties", "ties", "della", "sce")
    }
    assert [plans[name].kept for name in ("linear", "task_arithmetic", "dare_ties")] == [0, 0, 0]
    assert plans["ties"].derived == 2 * 8 * LLAMA_1B[0]
    assert plans["della"].derived == 2 * 2 * LLAMA_1B[0]
    assert plans["sce"] == plan_memory(sizes, HOST, Sharing(), [METHODS["sce"]])
    monkeypatch.setattr(fused, "available", lambda: False)
    without = plan_memory(sizes, HOST, Sharing(), [TIES], one_pass=True)
    assert without.wanted == 2 * 4 * LLAMA_1B[0]


def test_one_pass_over_a_gpu_keeps_nothing_that_it_computes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes, machine = family(LLAMA_1B, 6), replace(HOST, device=H100)

    def plan(*methods: str) -> MemoryPlan:
        chosen = [METHODS[name] for name in methods]
        return plan_memory(sizes, machine, Sharing(), chosen, one_pass=True)

    monkeypatch.setattr(fused_gpu, "available", lambda: False)
    by_steps = plan("ties")
    assert by_steps == plan_memory(sizes, machine, Sharing(), [TIES])
    assert by_steps.derived > 10 * GB
    monkeypatch.setattr(fused_gpu, "available", lambda: True)
    assert plan("ties") == replace(by_steps, derived=0, passes=by_steps.passes + by_steps.derived)
    assert plan("ties", "della").derived > 0


def test_adapters_that_are_added_up_need_no_memory() -> None:
    sizes = replace(family(LLAMA_1B, 2, stored=4, live=4), computed=2 * 4 * 10**8, deltas=2 * 10**8)
    plans = [plan_memory(sizes, HOST, Sharing(), [method]) for method in (ARITHMETIC, TIES)]
    assert [plan.inputs for plan in plans] == [0, 2 * 4 * 10**8]


@pytest.fixture
def adapters(llama_family: Any, tmp_path: Path) -> list[str]:
    """A base, and two experts that are adapters on it."""
    names = ("a", "b")
    base = llama_family.base
    for seed, name in enumerate(names):
        adapter(base, tmp_path / name, r=4, target_modules="all-linear", seed=seed)
    return [base, *(f"{base}+{tmp_path / name}" for name in names)]


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize("one_pass", [False, True])
@pytest.mark.parametrize("adapted", [False, True])
def test_a_live_model_keeps_no_more_than_planned(
    one_pass: bool,
    adapted: bool,
    llama_family: Any,
    adapters: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fused, "FEWEST", 1 if one_pass else 10**9)
    base, *experts = models = adapters if adapted else llama_family.models
    weights = {"weight": (((0.3, 0.5, 0.7)[: len(experts)],),)}
    for method in (ARITHMETIC, TIES, METHODS["dare_linear"], METHODS["della"]):
        live = LiveModel(models, dtype="float32", resident_bytes=10**9)
        sizes = sizes_of(live.checkpoints, 4)
        plan = plan_memory(sizes, HOST, Sharing(), [method], one_pass=one_pass)
        for density in (0.4, 0.5, 0.6):
            fixed = {"density": density} if "density" in method.parameters else {}
            live.write(Merge(method.name, tuple(experts), base, own=weights, fixed=fixed))
        (kept,) = live.memories.values()
        small = 2**14  # norms and thresholds
        assert kept.used <= plan.kept + small
        assert plan.kept == 0 or kept.used > plan.kept / 2, method.name


def test_on_cpus_what_is_kept_leaves_room_for_the_files() -> None:
    plan = plan_memory(family(MISTRAL_7B, 6), HOST, Sharing(), [ARITHMETIC])
    spare = 128 * GB - plan.files - plan.weights - plan.workspace
    assert 0 < plan.inputs < spare < 32 * GB
    assert plan.host + plan.files <= 128 * GB
    assert plan.faults == ()


def test_more_workers_than_memory_are_said_to_be_too_many() -> None:
    plan = plan_memory(family(LLAMA_1B, 2), HOST, Sharing(10_000, 10_000), [ARITHMETIC])
    (fault,) = plan.faults
    assert fault.startswith("10000 workers need ")
    assert fault.endswith("128.0 GB are free; lower workers.count")
    assert plan.kept == 0


def test_sizes_are_those_of_the_headers(llama_family) -> None:
    opened = {model: open_checkpoint(model) for model in llama_family.models}
    sizes = sizes_of(opened, itemsize=2)
    base = next(iter(opened.values()))
    assert sizes.numbers == sum(header.numel for header in base.tensors.values())
    assert sizes.models == (4 * sizes.numbers,) * len(opened)
    assert sizes.files == sum(sizes.models)
    assert sizes.computed == 0
    assert sizes.weights == 2 * sizes.numbers
    assert sizes.tensors == tuple(header.numel for header in base.tensors.values())


def test_what_adapters_leave_as_it_is_counts_once(llama_family) -> None:
    base = open_checkpoint(llama_family.base)
    changed = frozenset(list(base.tensors)[:2])
    opened = {base.name: base} | {
        name: replace(base, name=name, adapted=changed) for name in ("a", "b")
    }
    sizes = sizes_of(opened, itemsize=4)
    touched = sum(base.tensors[name].numel for name in changed)
    assert sizes.models == (4 * sizes.numbers, 4 * touched, 4 * touched)
    assert sizes.deltas == 2 * touched
    assert sizes.computed == 2 * 4 * touched
    assert sizes.files == 4 * sizes.numbers


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A GPU's memory; what is changed in it, the driver says from then on."""
    state = {"total": 80 * GB, "free": 80 * GB, "own": 0}
    monkeypatch.setattr(memory_plan, "gpu_memory", lambda _: (state["total"], state["free"]))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: state["own"])
    return state


def test_a_worker_on_a_cpu_plans_with_the_host(llama_family: Any) -> None:
    opened = {model: open_checkpoint(model) for model in llama_family.models}
    plan = plan_memory_here(opened, SETUP)
    assert not plan.on_gpu
    assert plan.inputs == plan.wanted > 0
    shared = plan_memory_here(opened, replace(SETUP, sharing=Sharing(4, 4)))
    assert shared.passes == plan.passes // 4


def test_a_worker_on_a_gpu_has_its_share_and_never_more_than_is_free(
    llama_family: Any, driver: dict[str, int]
) -> None:
    opened = {model: open_checkpoint(model) for model in llama_family.models}
    on_gpu = replace(SETUP, device="cuda")
    assert plan_memory_here(opened, on_gpu).share == 80 * GB - CONTEXT_BYTES
    halves = replace(on_gpu, sharing=Sharing(node=2, device=2))
    driver.update(free=45 * GB, own=5 * GB)  # the other one holds 30 GB
    assert plan_memory_here(opened, halves).share == 40 * GB - CONTEXT_BYTES
    driver.update(free=20 * GB, own=5 * GB)  # and another program 25 GB
    assert plan_memory_here(opened, halves).share == 25 * GB - CONTEXT_BYTES


def test_workers_on_one_gpu_cannot_take_each_others_memory(
    monkeypatch: pytest.MonkeyPatch, driver: dict[str, int]
) -> None:
    limits: list[float] = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", limits.append)
    keep_to_share(replace(SETUP, device="cuda"))
    keep_to_share(replace(SETUP, sharing=Sharing(2, 2)))
    assert limits == []
    keep_to_share(replace(SETUP, device="cuda", sharing=Sharing(2, 2)))
    assert limits == [0.5 - CONTEXT_BYTES / (80 * GB)]


def test_models_that_are_live_at_once_all_count(llama_family: Any) -> None:
    opened = {name: open_checkpoint(name) for name in llama_family.models}
    one, three = sizes_of(opened, 4), sizes_of(opened, 4, live=3)
    assert three.weights == 3 * one.weights
    assert replace(three, weights=one.weights) == one


@pytest.mark.parametrize(("device", "fits"), [(H100, True), (RTX4090, False)])
def test_what_does_not_fit_says_so_and_why(device: int, fits: bool) -> None:
    plan = gpu(device, family(MISTRAL_7B, 2, live=2 * 2))
    assert plan.fits == fits
    assert bool(plan.faults) != fits
    small = replace(HOST, host_free=2**30)
    on_host = plan_memory(family(LLAMA_1B, 2, live=4), small, Sharing(), [TIES])
    assert not on_host.fits
    assert "of memory, 1.1 GB are free" in on_host.faults[0]


def test_linear_algebra_takes_the_hosts_memory(llama_family: Any) -> None:
    opened = {model: open_checkpoint(model) for model in llama_family.models}
    sizes = sizes_of(opened, 4)
    assert (32, 32) in sizes.matrices
    assert opened[llama_family.base].tensors["lm_head.weight"].shape not in sizes.matrices
    regmean, linear = METHODS["regmean"], METHODS["linear"]
    wide = replace(sizes, matrices=frozenset({(4096, 14_336), (4096, 4096)}))
    bytes_of = regmean.matrix_bytes
    assert bytes_of is not None
    taken = bytes_of(4096, 14_336, len(opened) - 1)
    plans = [plan_memory(wide, HOST, Sharing(), [method]) for method in (regmean, linear)]
    assert plans[0].workspace == taken > plans[1].workspace
    on_gpu = [gpu(H100, wide, method=method) for method in (regmean, linear)]
    assert on_gpu[0].host - on_gpu[1].host == taken
