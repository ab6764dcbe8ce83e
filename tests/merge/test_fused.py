"""Merges in one pass: the bits of the eager maths, for every dtype, size and rule."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from evomerge.merge import fused, fused_gpu, gpu_vectors
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.engine import MergeRun
from evomerge.merge.files import TensorHeader
from evomerge.merge.memory import Memory
from evomerge.merge.methods import METHODS
from evomerge.merge.plan import MergePlan, TensorPlan
from evomerge.merge.resident import ResidentInputs

DEVICES = {"numba": "cpu", "triton": "cuda" if torch.cuda.is_available() else "cpu"}
place = {}


def needs(package):
    return pytest.mark.skipif(find_spec(package) is None, reason=f"needs {package}")


@pytest.fixture(autouse=True, params=[pytest.param(name, marks=needs(name)) for name in DEVICES])
def compiler(request, monkeypatch):
    """Merge in one pass as on a CPU, or as on a GPU: there, or by Triton's interpreter."""
    monkeypatch.setattr(fused, "FEWEST", 1)
    monkeypatch.setattr(fused, "_is_gpu", lambda _: request.param == "triton")
    monkeypatch.setitem(place, "device", DEVICES[request.param])
    return request.param


SUMS = (
    *("linear", "task_arithmetic", "ties", "dare_linear", "dare_ties"),
    *("breadcrumbs", "breadcrumbs_ties", "della", "della_linear"),
)
SIZES = (1, 3, 1024, 3000, 70_001)
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def numbers(size, dtype, seed, scale=0.02):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(size, generator=generator) * scale).to(dtype)


def family(size, dtypes, experts=3):
    """Models of one tensor, `w`; the base's has a zero, and one expert is equal to it in a third of it."""
    base = numbers(size, torch.float32, 0)
    base[0] = -0.0
    found = {"base": base}
    for number in range(experts):
        found[f"m{number}"] = base + numbers(size, torch.float32, number + 1, 0.002)
    found["m0"][: size // 3] = base[: size // 3]
    return {
        name: opened(name, tensor.to(dtypes[place % len(dtypes)]))
        for place, (name, tensor) in enumerate(found.items())
    }


def opened(name, tensor):
    header = TensorHeader(tuple(tensor.shape), tensor.dtype)
    return Checkpoint(name, Path(name), LlamaConfig(), {"w": header}, _read=lambda _: tensor)


def run_of(method, models, *, memory=None, dtype=None, seed=3, weights=(0.7, -0.4, 1.3), **given):
    """A run over one tensor; `given` parameters take the place of defaults."""
    chosen, names = METHODS[method], tuple(models)
    values = {k: p.default for k, p in chosen.parameters.items() if p.default is not None} | given
    shared = {
        k: v
        for k, v in values.items()
        if k in chosen.parameters and not chosen.parameters[k].per_source
    }
    each = {
        k: v
        for k, v in values.items()
        if k in chosen.parameters and chosen.parameters[k].per_source
    }
    own = tuple({**each, "weight": weight} for weight in (0.5, *weights))[: len(names)]
    base = 0 if chosen.uses_base else None
    piece = TensorPlan("w", names, ("w",) * len(names), base, shared, own)
    plan = MergePlan(chosen, LlamaConfig(), (piece,), names, seed=seed)
    return MergeRun(plan, models, memory=memory, dtype=dtype, **place)


def merged(run):
    return run.merged(run.plan.tensors[0])


def bits(tensor):
    return tensor.view(torch.int16 if tensor.dtype.itemsize == 2 else torch.int32)


def both(monkeypatch, *args, **kwargs):
    """The same merge in one pass, and by the eager maths on the CPU, as bits."""
    calls, where = [], place["device"]
    write = fused.write
    monkeypatch.setattr(fused, "write", lambda *given: calls.append(1) or write(*given))
    one_pass = merged(run_of(*args, **kwargs))
    assert calls
    monkeypatch.setattr(fused, "write", lambda *_: False)
    monkeypatch.setitem(place, "device", "cpu")
    eager = merged(run_of(*args, **(kwargs | {"memory": None})))
    monkeypatch.setitem(place, "device", where)
    monkeypatch.setattr(fused, "write", write)
    return bits(one_pass).cpu(), bits(eager)


@pytest.mark.parametrize("method", SUMS)
@pytest.mark.parametrize("size", SIZES)
def test_it_has_the_bits_of_the_eager_maths(method, size, monkeypatch, compiler):
    if compiler == "triton":  # whose blocks are smaller, and whose interpreter is slow
        size = min(size, 2 * gpu_vectors.COUNTED + 1)
    models = family(size, (torch.bfloat16,))
    for given in ({}, {"normalize": True, "lambda": 0.3}, {"normalize": False, "rescale": True}):
        one_pass, eager = both(
            monkeypatch, method, models, dtype="bfloat16", density=0.37, gamma=0.2, **given
        )
        assert torch.equal(one_pass, eager), given


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("stored", [*((one,) for one in DTYPES), DTYPES], ids=str)
def test_any_dtype(dtype, stored, monkeypatch):
    models = family(3000, stored)
    one_pass, eager = both(monkeypatch, "task_arithmetic", models, dtype=dtype)
    assert torch.equal(one_pass, eager)


@pytest.mark.parametrize("method", [name for name in SUMS if "density" in METHODS[name].parameters])
@pytest.mark.parametrize(
    ("density", "memory"),
    [(0.5, 0), *((density, 10**9) for density in (0.0, 1e-9, 0.003, 0.5, 0.999, 1.0))],
)
def test_any_density_with_and_without_memory(method, density, memory, monkeypatch):
    models = family(5000, (torch.bfloat16,))
    kept = Memory(memory)
    for _ in range(2):
        one_pass, eager = both(
            monkeypatch, method, models, memory=kept, density=density, dtype="bfloat16"
        )
        assert torch.equal(one_pass, eager)


@pytest.mark.parametrize("method", ["ties", "dare_linear", "dare_ties", "breadcrumbs", "della"])
@pytest.mark.parametrize("memory", [0, 10**9])
def test_what_adapters_make_of_the_base_is_read_where_it_is_kept(
    method, memory, monkeypatch, compiler
):
    stored = family(5000, (torch.bfloat16, torch.float32, torch.float32, torch.float32))
    adapted = {name: replace(one, adapted=frozenset({"w"})) for name, one in stored.items()}
    models = adapted | {"base": stored["base"]}
    kept, done, write = Memory(memory), [], fused.write
    monkeypatch.setattr(fused, "write", lambda *given: done.append(write(*given)) or done[-1])
    found = [merged(run_of(method, models, memory=kept, density=0.37)) for _ in range(2)]
    goes = method != "della" or compiler == "numba"
    assert done == [memory > 0 and goes] * 2
    monkeypatch.setattr(fused, "write", lambda *_: False)
    for models_of_files in (stored, models):
        eager = merged(run_of(method, models_of_files, density=0.37))
        assert all(torch.equal(bits(one), bits(eager)) for one in found)


@pytest.mark.parametrize("method", ["della", "della_linear"])
@pytest.mark.parametrize("shape", [(60, 50), (3, 1000), (3000, 1), (5, 20, 30)])
def test_ranks_are_those_of_rows(method, shape, monkeypatch, compiler):
    """Some models keep all entries, and one expert is the base's own tensor."""
    models = family(3000, (torch.bfloat16,))
    models = {name: opened(name, one.tensor("w").view(shape)) for name, one in models.items()}
    models["m2"] = models["base"]
    done, write = [], fused.write
    memory = Memory(10**6)
    for density, seed in ((0.4, 1), (0.7, 1), (0.7, 2), (0.05, 2)):
        run = run_of(method, models, memory=memory, density=density, seed=seed, dtype="bfloat16")
        piece = run.plan.tensors[0]
        own = (*tuple(piece.own[:1]), {**piece.own[1], "density": 1.0}, *piece.own[2:])
        changed = replace(run.plan, tensors=(replace(piece, own=own),))
        monkeypatch.setattr(fused, "write", lambda *given: done.append(write(*given)) or done[-1])
        one_pass = merged(MergeRun(changed, models, memory=memory, dtype="bfloat16", **place))
        monkeypatch.setattr(fused, "write", lambda *_: False)
        assert torch.equal(
            bits(one_pass).cpu(), bits(merged(MergeRun(changed, models, dtype="bfloat16")))
        )
    assert done == [compiler == "numba" or shape[1:] == (1,)] * 4  # one entry has no rank


@pytest.mark.parametrize("method", SUMS)
def test_tensors_of_one_size_and_other_shapes_are_merged_as_each_alone(method):
    shapes = {"wide": (30, 100), "high": (100, 30), "flat": (3000,)}
    headers = {key: TensorHeader(shape, torch.bfloat16) for key, shape in shapes.items()}

    def shaped(one):
        return replace(one, tensors=headers, _read=lambda key: one.tensor("w").view(shapes[key]))

    models = {name: shaped(one) for name, one in family(3000, (torch.bfloat16,)).items()}
    (piece,) = run_of(method, family(3000, (torch.bfloat16,)), density=0.4).plan.tensors
    pieces = tuple(replace(piece, name=key, tensors=(key,) * len(models)) for key in shapes)
    plan = MergePlan(METHODS[method], LlamaConfig(), pieces, tuple(models), seed=3)
    together = MergeRun(plan, models, **place)
    for one in pieces:
        alone = MergeRun(replace(plan, tensors=(one,)), models, **place)
        assert torch.equal(bits(together.merged(one)), bits(alone.merged(one))), one.name


def test_a_new_density_and_a_new_seed_are_seen(monkeypatch, compiler):
    size = 20_000
    models, memory = family(size, (torch.bfloat16,)), Memory(10**9)
    for method in ("ties", "dare_ties", "breadcrumbs"):
        for density, seed in ((0.3, 1), (0.31, 1), (0.31, 2), (0.3, 2)):
            one_pass, eager = both(
                monkeypatch,
                method,
                models,
                memory=memory,
                density=density,
                seed=seed,
                dtype="bfloat16",
            )
            assert torch.equal(one_pass, eager)
    on_device = 8 * size if DEVICES[compiler] == "cuda" else 0
    assert memory.used < 4 * size + on_device  # no task vector, no mask


@pytest.mark.parametrize("method", ["ties", "dare_ties"])
def test_threads_change_no_bit(method, monkeypatch, compiler):
    if compiler != "numba":
        pytest.skip("a GPU has no threads of the host's")
    models = family(400_000, (torch.bfloat16,))
    alone = merged(run_of(method, models, density=0.4))
    monkeypatch.setattr(fused, "ALONE", 0)
    torch.set_num_threads(3)
    try:
        together = merged(run_of(method, models, density=0.4))
    finally:
        torch.set_num_threads(1)
    assert torch.equal(alone, together)


@pytest.mark.parametrize("live", DTYPES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_target_gets_what_a_file_would_hold(live, dtype):
    run = run_of("task_arithmetic", family(3000, (torch.bfloat16,)), dtype=dtype)
    target = torch.zeros(3000, dtype=live, **place)
    run.write([(run.plan.tensors[0], target)])
    assert torch.equal(target, merged(run).to(live))
    apart = torch.zeros(3000, 2, dtype=live, **place)[:, 0]  # not contiguous
    run.write([(run.plan.tensors[0], apart)])
    assert torch.equal(target, apart)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # numpy's, for the kernel
def test_infinity_and_nan_are_rounded_as_torch_does(monkeypatch):
    models = family(8, (torch.float32,), experts=1)
    extreme = torch.tensor([3e38, -3e38, 3.4e38, float("inf"), float("nan"), 1e-45, -1e-40, 0.0])
    models["m0"] = replace(models["m0"], _read=lambda _: extreme)
    for dtype in ("float32", "bfloat16", "float16"):
        one_pass, eager = both(
            monkeypatch, "linear", models, weights=(1.0,), dtype=dtype, normalize=False
        )
        nan = torch.tensor([False] * 4 + [True] + [False] * 3)
        assert torch.equal(one_pass[~nan], eager[~nan])


def test_float64_and_rows_are_left_to_the_method(monkeypatch):
    def refuse(*_args):
        raise AssertionError

    monkeypatch.setattr(fused, "_merge", refuse)
    monkeypatch.setattr(fused_gpu, "_merge", refuse)
    models = family(64, (torch.float32,))
    assert merged(run_of("linear", models, dtype="float64")).dtype == torch.float64
    run = run_of("task_arithmetic", models)
    piece = replace(run.plan.tensors[0], added=(None, torch.ones(64).numpy(), None, None))
    assert (
        MergeRun(replace(run.plan, tensors=(piece,)), models, **place).merged(piece).numel() == 64
    )


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "dare_linear", "breadcrumbs"])
@pytest.mark.parametrize("stored", [(torch.bfloat16,), DTYPES], ids=["alike", "mixed"])
def test_tensors_of_one_merge_have_their_own_sizes_and_numbers(method, stored, monkeypatch):
    launched, merge = [], fused_gpu._merge
    monkeypatch.setattr(
        fused_gpu, "_merge", lambda some, on: launched.append(len(some)) or merge(some, on)
    )
    parts = {name: family(size, stored) for name, size in (("u", 3000), ("v", 1024), ("w", 3000))}
    models = {
        model: replace(
            one,
            tensors={name: parts[name][model].tensors["w"] for name in parts},
            _read=lambda name, model=model: parts[name][model].tensor("w"),
        )
        for model, one in parts["w"].items()
    }
    plan = run_of(method, models, density=0.37).plan
    piece = plan.tensors[0]
    other = tuple({**values, "weight": 0.1} for values in piece.own)
    alike = (replace(piece, name=name, tensors=(name,) * len(models)) for name in ("u", "v"))
    run = MergeRun(replace(plan, tensors=(*alike, replace(piece, own=other))), models, **place)
    one_pass = dict(run.tensors())
    monkeypatch.setattr(ResidentInputs, "is_kept", lambda *_: True)  # so that tensors are gathered
    written = {name: torch.zeros_like(tensor) for name, tensor in one_pass.items()}
    run.write((one, written[one.name]) for one in run.plan.tensors)
    assert launched[-1:] in (
        [],
        [3 if stored == (torch.bfloat16,) else 1],
    )  # copies are not gathered
    monkeypatch.setattr(fused, "write", lambda *_: False)
    for name, tensor in run.tensors():
        assert torch.equal(tensor, one_pass[name]), name
        assert torch.equal(tensor, written[name]), name
