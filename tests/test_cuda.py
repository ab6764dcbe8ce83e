"""The whole chain on a GPU: it runs wherever PyTorch finds one, beside the same on the CPU.

Without one, what can be computed of it is tested elsewhere: the memory plan, what stays on a device
(`meta`), what PyTorch's kernels are given.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from evomerge import zoo
from evomerge.candidate import Coefficients, Merge, PathStep, Stack
from evomerge.candidate.trial import Entry, FailureKind, GradientJob, Job, Outcome
from evomerge.combine.stack import StackBuilder, save_stack
from evomerge.config import Workers
from evomerge.inference.forward import Forward
from evomerge.merge import fused
from evomerge.merge.live import LiveModel
from evomerge.merge.masks import largest, row_ranks, uniform
from evomerge.merge.methods import METHODS
from evomerge.merge.methods.low_rank import product
from evomerge.merge.quantise import loading
from evomerge.merge.saving import save
from evomerge.merge.staging import to_device
from evomerge.tasks import PromptStyle, SplitPlan, TaskRequest
from evomerge.workers import WorkerSetup, open_pool
from evomerge.workers.evaluator import Evaluator
from evomerge.workers.placement import Sharing

DEVICE = "cuda"
pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="PyTorch finds no GPU here (torch.cuda.is_available())"
)
several = pytest.mark.skipif(
    torch.cuda.device_count() < 2, reason="needs two GPUs (torch.cuda.device_count())"
)
TASKS = Path(__file__).parents[1] / "benchmarks" / "tasks"
METRICS = {
    "zoo_facts": ("exact_match", "gold_loglikelihood"),  # generated, and read
    "zoo_tools_mc": ("acc", "gold_probability"),
}
SUMS = ("slerp", "nuslerp", "multislerp", "karcher", "model_stock", "sce", "arcee_fusion")
SAME_EVERYWHERE = tuple(name for name in METHODS if name not in (*SUMS, "passthrough"))


@pytest.fixture(autouse=True)
def _any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Merge small models in one pass, too."""
    monkeypatch.setattr(fused, "FEWEST", 1)


def by_row(merge: Merge) -> Merge:
    """Add numbers of each row's own to the weights of a square and of a vector."""
    generator = np.random.default_rng(4)
    tables = {
        name: 0.2 * generator.normal(size=(len(merge.experts), 32)).astype(np.float32)
        for name in ("model.layers.1.self_attn.q_proj.weight", "model.norm.weight")
    }
    return replace(merge, coefficients=Coefficients(tables))


def merge_of(models: tuple[str, ...], method: str, dtype: str, seed: int = 0) -> Merge:
    rng, takes = random.Random(seed), METHODS[method]
    base, *experts = models
    inputs = (experts if takes.uses_base else models)[: takes.max_models]
    low = takes.parameters["weight"].low if "weight" in takes.parameters else None
    weights = tuple(rng.uniform(-0.5 if low is None else low, 1.5) for _ in inputs)
    fixed = {"density": 0.4, "t": 0.01}
    return Merge(
        method,
        tuple(inputs),
        base if takes.uses_base else None,
        own={"weight": ((weights,),)} if "weight" in takes.parameters else {},
        fixed={name: value for name, value in fixed.items() if name in takes.parameters},
        dtype=dtype,
        seed=seed,
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rows", [False, True], ids=["groups", "rows"])
@pytest.mark.parametrize("budget", [0, 10**8], ids=["streamed", "resident"])
def test_a_live_merge_is_the_saved_one_to_the_bit(
    dtype: str, budget: int, rows: bool, llama_family: Any, tmp_path: Path
) -> None:
    live = LiveModel(llama_family.models, dtype=dtype, device=DEVICE, resident_bytes=budget)
    for method in (*SAME_EVERYWHERE, *SUMS):
        if rows and not METHODS[method].rows:
            continue
        recipe = merge_of(llama_family.models, method, dtype)
        recipe = by_row(recipe) if rows else recipe
        live.write(recipe)
        # What sums over a whole tensor may differ between devices in the last bit.
        save(recipe, tmp_path / method, device="cpu" if method in SAME_EVERYWHERE else DEVICE)
        loaded = AutoModelForCausalLM.from_pretrained(
            tmp_path / method, dtype=getattr(torch, dtype)
        ).state_dict()
        for name, tensor in live.module.state_dict().items():
            assert tensor.device.type == DEVICE
            assert torch.equal(tensor.cpu(), loaded[name]), (method, name)


@pytest.mark.filterwarnings("ignore::FutureWarning:transformers", "ignore::UserWarning:peft")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adapters_merged_live_are_those_saved_from_the_cpu(
    dtype: str, llama_family: Any, tmp_path: Path
) -> None:
    base = llama_family.base
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = get_peft_model(
            AutoModelForCausalLM.from_pretrained(base),
            LoraConfig(task_type="CAUSAL_LM", r=3, target_modules="all-linear"),
        )
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.add_(0.1 * torch.randn(parameter.shape))
        model.save_pretrained(tmp_path / str(seed))
    models = (base, *(f"{base}+{tmp_path / str(seed)}" for seed in (1, 2)))
    live = LiveModel(models, dtype=dtype, device=DEVICE, resident_bytes=10**8)
    sums = ("linear", "task_arithmetic")
    recipes = {name: merge_of(models, name, dtype) for name in (*sums, "ties", "dare_linear")}
    recipes |= {f"{name} by row": by_row(recipes[name]) for name in sums}
    for name in ("ties", "dare_ties", "breadcrumbs", "tsv", "iso_c", "regmean"):
        plain = merge_of(models, name, dtype)
        in_core_space = replace(plain, fixed={**plain.fixed, "core_space": True})
        recipes[f"{name} in core space"] = in_core_space
    for name, recipe in recipes.items():
        live.write(recipe)
        save(recipe, tmp_path / name, device="cpu")
        there, here = dict(live.tensors_held()), load_file(tmp_path / name / "model.safetensors")
        for tensor, saved in here.items():
            assert torch.equal(there[tensor].cpu(), saved), (name, tensor)


def test_files_written_from_a_gpu_are_those_written_from_the_cpu(
    llama_family: Any, tmp_path: Path
) -> None:
    recipe = merge_of(llama_family.models, "dare_ties", "bfloat16")
    for device in ("cpu", DEVICE):
        save(recipe, tmp_path / device, device=device)
    there, here = (load_file(tmp_path / d / "model.safetensors") for d in (DEVICE, "cpu"))
    assert all(torch.equal(there[name], here[name]) for name in here)


def test_masks_are_the_same_on_every_device() -> None:
    assert torch.equal(uniform(7, 100_001, DEVICE).cpu(), uniform(7, 100_001))
    delta = torch.randn(10_000).round(decimals=1)  # many equal magnitudes
    for count in (1, 777, 5000, 9999):
        assert torch.equal(largest(delta.to(DEVICE), count).cpu(), largest(delta, count))
    rows = delta.view(50, 200)
    assert torch.equal(row_ranks(rows.to(DEVICE)).cpu(), row_ranks(rows).int())


@pytest.mark.parametrize("rank", [3, 96, 700])
def test_products_of_factors_are_the_same_on_every_device(rank: int) -> None:
    generator = torch.Generator().manual_seed(rank)
    left, right = (torch.randn(n, rank, generator=generator).double() for n in (300, 200))
    there = product(left, right.T, device=DEVICE)
    assert there.device.type == DEVICE
    assert torch.equal(there.cpu(), product(left, right.T))


@pytest.fixture(scope="module")
def models() -> tuple[str, ...]:
    return tuple(str(zoo.resolve(f"zoo:{name}")) for name in ("base", "facts", "tools"))


@pytest.fixture(scope="module")
def setup(models: tuple[str, ...]) -> WorkerSetup:
    return WorkerSetup(
        models=models,
        dtype="float32",
        requests=tuple(TaskRequest(task) for task in METRICS),
        tasks_path=str(TASKS),
        plan=SplitPlan({"search": 12}),
        prompt=PromptStyle(),
        threads=1,
        device=DEVICE,
        methods=("task_arithmetic",),
    )


@pytest.fixture(scope="module")
def on_cpu(setup: WorkerSetup) -> Evaluator:
    return Evaluator(replace(setup, device="cpu"))


@pytest.fixture(scope="module")
def on_gpu(setup: WorkerSetup) -> Evaluator:
    return Evaluator(setup)


def job(models: tuple[str, ...], seed: int = 0) -> Job:
    recipe = merge_of(models, "task_arithmetic", "float32", seed)
    return Job(Entry("trial 0", recipe, 0), "search", METRICS)  # type: ignore[arg-type]


def same_scores(found: Outcome, expected: Outcome) -> None:
    assert found.failure is None
    for task, metrics in METRICS.items():
        for metric in metrics:
            values = found.scores[task].metrics[metric]
            assert values == pytest.approx(expected.scores[task].metrics[metric], abs=2e-3), metric


def test_scores_are_those_of_the_cpu(
    models: tuple[str, ...], on_gpu: Evaluator, on_cpu: Evaluator
) -> None:
    for seed in (0, 1):  # the second one has drafts to verify
        same_scores(on_gpu.evaluate(job(models, seed)), on_cpu.evaluate(job(models, seed)))
    first, again = (on_gpu.evaluate(job(models, 0)).scores for _ in range(2))
    assert first == again


def test_gradients_are_those_of_the_cpu(
    models: tuple[str, ...], on_gpu: Evaluator, on_cpu: Evaluator
) -> None:
    recipe = merge_of(models, "task_arithmetic", "float32")
    shares = dict.fromkeys(METRICS, 0.5)
    items = dict.fromkeys(METRICS, (0, 3, 7))
    asked = GradientJob("descent 0, step 0", recipe, items, shares, rows=True)
    found, expected = on_gpu.gradient(asked), on_cpu.gradient(asked)
    assert found.failure is None
    assert found.loss == pytest.approx(expected.loss, rel=1e-3)
    own, exact = found.numbers["weight"], np.array(expected.numbers["weight"])
    assert np.array(own) == pytest.approx(exact, rel=1e-2, abs=1e-3 * np.abs(exact).max())
    assert found.rows.keys() == expected.rows.keys() != set()
    for name, table in expected.rows.items():
        most = float(np.abs(table).max())
        assert found.rows[name] == pytest.approx(table, rel=1e-2, abs=1e-2 * most)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_stack_is_the_saved_one_to_the_bit(dtype: str, llama_family: Any, tmp_path: Path) -> None:
    base, one, two = llama_family.models[:3]
    members = {
        "one": Merge("passthrough", (one,), dtype=dtype),
        "mix": merge_of((base, one, two), "task_arithmetic", dtype),
    }
    path = (
        PathStep("one", 0),
        PathStep("mix", 1, 0.8),
        PathStep("mix", 2),
        PathStep("one", 2),
        PathStep("mix", 3),
    )
    stack = Stack(base, members, path)
    live = LiveModel(stack.model_names(), dtype=dtype, device=DEVICE)
    module = StackBuilder(live).build(stack)
    save_stack(stack, tmp_path / "out", device=DEVICE)
    saved = load_file(tmp_path / "out" / "model.safetensors", device=DEVICE)
    for name, tensor in saved.items():
        assert torch.equal(module.state_dict()[name], tensor), name
    tokens = torch.arange(3, 40, device=DEVICE)[None]
    on_cpu = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=dtype).eval()
    with torch.no_grad():
        apart = (module(tokens).logits.cpu() - on_cpu(tokens.cpu()).logits).abs().max()
    assert apart < (1e-4 if dtype == "float32" else 0.1)


def test_what_many_prompts_begin_with_is_attended_to_once(on_gpu: Evaluator) -> None:
    with torch.inference_mode():
        assert Forward(on_gpu._scoring._model.module).cascades  # type: ignore[union-attr]


@pytest.fixture
def little_memory(on_gpu: Evaluator) -> Iterator[list[torch.Tensor]]:
    """No more memory for this process, and what PyTorch has in reserve filled up."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-6)
    filling: list[torch.Tensor] = []
    for size in (2**22, 2**20, 2**16, 2**10):
        try:
            while True:
                filling.append(torch.empty(size, dtype=torch.uint8, device=DEVICE))
        except torch.OutOfMemoryError:
            continue
    yield filling
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_out_of_memory_is_a_recorded_failure(
    models: tuple[str, ...], on_gpu: Evaluator, little_memory: list[torch.Tensor]
) -> None:
    outcome = on_gpu.evaluate(job(models, 2))
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.OUT_OF_MEMORY
    little_memory.clear()
    torch.cuda.set_per_process_memory_fraction(1.0)
    assert on_gpu.evaluate(job(models, 2)).failure is None


def test_a_worker_keeps_to_its_share(models: tuple[str, ...], setup: WorkerSetup) -> None:
    shared = Evaluator(replace(setup, sharing=Sharing(node=4, device=4)))
    try:
        assert shared.evaluate(job(models)).failure is None
        assert torch.cuda.max_memory_reserved() < torch.cuda.mem_get_info()[1] / 4
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_two_workers_on_one_device(
    models: tuple[str, ...], setup: WorkerSetup, on_cpu: Evaluator
) -> None:
    pool = open_pool(setup, Workers(count=2, gpus=0.5))
    try:
        found = {}
        for seed in (0, 1):
            pool.submit(job(models, seed))
        for _ in range(2):
            work, outcome = pool.next()
            assert isinstance(work, Job)
            assert isinstance(outcome, Outcome)
            found[work.entry.candidate.text()] = outcome
        assert len({outcome.worker for outcome in found.values()}) == 2
    finally:
        pool.close()
    for seed in (0, 1):
        asked = job(models, seed)
        same_scores(found[asked.entry.candidate.text()], on_cpu.evaluate(asked))


@pytest.mark.parametrize("count", [1, 10**6, 10**8])
def test_copies_through_pinned_memory_are_plain_copies(count: int) -> None:
    tensor = torch.randn(count, dtype=torch.bfloat16)
    copies = [to_device(tensor, torch.device(DEVICE)) for _ in range(3)]
    assert all(torch.equal(one, tensor.to(DEVICE)) for one in copies)


@several
@pytest.mark.parametrize("budget", [0, 10**8], ids=["streamed", "resident"])
def test_a_live_merge_over_two_gpus_is_that_on_one(budget: int, llama_family: Any) -> None:
    options = {"dtype": "bfloat16", "device": DEVICE, "resident_bytes": budget}
    one = LiveModel(llama_family.models, **options)
    two = LiveModel(llama_family.models, devices=2, **options)
    assert {each.device.index for each in two.module.parameters()} == {0, 1}
    for method in (*SAME_EVERYWHERE, *SUMS):
        recipe = merge_of(llama_family.models, method, "bfloat16")
        one.write(recipe)
        two.write(recipe)
        expected = one.module.state_dict()
        for name, tensor in two.module.state_dict().items():
            assert torch.equal(tensor.cpu(), expected[name].cpu()), (method, name)


@several
def test_scores_and_gradients_over_two_gpus_are_those_of_one(
    models: tuple[str, ...], setup: WorkerSetup, on_gpu: Evaluator
) -> None:
    over_two = Evaluator(replace(setup, gpus=2))
    for seed in (0, 1):
        same_scores(over_two.evaluate(job(models, seed)), on_gpu.evaluate(job(models, seed)))
    recipe = merge_of(models, "task_arithmetic", "float32")
    items, shares = dict.fromkeys(METRICS, (0, 3, 7)), dict.fromkeys(METRICS, 0.5)
    asked = GradientJob("descent 0, step 0", recipe, items, shares)
    found, expected = over_two.gradient(asked), on_gpu.gradient(asked)
    assert found.failure is None
    assert np.allclose(found.numbers["weight"], expected.numbers["weight"], rtol=1e-5)


@pytest.mark.parametrize("scheme", ["nf4", "fp4", "int8"])
def test_quantised_weights_are_those_that_transformers_loads(
    scheme: str, llama_family: Any, tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    base, *experts = llama_family.models
    merge = Merge("task_arithmetic", tuple(experts), base, fixed={"weight": 0.4}, dtype="bfloat16")
    live = LiveModel(llama_family.models, dtype="bfloat16", device=DEVICE, quantise=scheme)
    live.write(merge)
    save(merge, tmp_path / "out", device=DEVICE)
    options = loading(scheme, torch.bfloat16, torch.device(DEVICE))
    loaded = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", dtype=torch.bfloat16, **options
    ).eval()
    found, expected = live.module.state_dict(), loaded.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    tokens = torch.arange(3, 51, device=DEVICE).reshape(2, 24)
    with torch.no_grad():
        assert torch.equal(live.module(input_ids=tokens).logits, loaded(input_ids=tokens).logits)
