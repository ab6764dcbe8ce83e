"""What is kept from one merge to the next, and what a method sees."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from evomerge.candidate import Recipe, Source
from evomerge.merge.checkpoint import open_checkpoint
from evomerge.merge.engine import merged_tensors
from evomerge.merge.masks import largest
from evomerge.merge.memory import Memory
from evomerge.merge.methods import METHODS
from evomerge.merge.resident import ResidentInputs

NAME = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture(params=[0, 10**9])
def inputs(request, llama_family):
    models = llama_family.models[:2]
    return ResidentInputs(
        name=NAME,
        sources=tuple((open_checkpoint(m), NAME, i) for i, m in enumerate(models)),
        base=0,
        shared={},
        own=({}, {}),
        seed=0,
        memory=Memory(request.param),
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


def test_inputs_are_what_the_files_hold(inputs, llama_family):
    base, expert = (open_checkpoint(model).tensor(NAME) for model in llama_family.models[:2])
    for _ in range(2):
        assert torch.equal(inputs.tensor(1), expert)
        assert torch.equal(inputs.delta(1), expert - base)
        assert inputs.norm(1).item() == pytest.approx((expert - base).abs().sum().item())
        assert torch.equal(
            inputs.largest(1, 100), largest((expert - base).view(-1), 100).view_as(base)
        )
        numbers = inputs.uniform(1)
        assert numbers.shape == base.shape
        assert not torch.equal(numbers, inputs.uniform(0))
        assert torch.equal(inputs.uniform(1, 5), numbers.reshape(-1)[:5])
    assert inputs.others == (1,)
    assert inputs.models == tuple(llama_family.models[:2])


def made(count, built):
    """What is built for a merge: `count` tensors; and one entry of `built`."""
    built.append(count)
    return tuple(torch.ones(3) for _ in range(count))


def test_what_a_merge_keeps_for_its_gradients_is_built_once_a_merge(llama_family):
    opened, built = open_checkpoint(llama_family.base), []
    numel = opened.tensors[NAME].numel
    memory = Memory(2 * 4 * numel)

    def inputs(merge):
        return ResidentInputs(
            name=NAME,
            sources=((opened, NAME, 0),),
            base=0,
            shared={},
            own=({},),
            seed=0,
            memory=memory,
            device=torch.device("cpu"),
            dtype=torch.float32,
            merge=merge,
        )

    assert inputs(None).once(2, partial(made, 2, built)) is None
    for merge in (1, 1, 2):
        assert len(inputs(merge).once(2, partial(made, 2, built))) == 2
    assert built == [2, 2]
    assert memory.used == memory.derived == memory.budget
    assert inputs(2).once(3, partial(made, 3, built)) is None


def test_an_order_is_kept_once_a_second_count_is_asked_for(llama_family):
    models = {model: open_checkpoint(model) for model in llama_family.models[:2]}
    numbers = sum(header.numel for header in models[llama_family.base].tensors.values())
    memory = Memory(10**9)
    expected = [4, 4, 4 + 8, 4 + 8]
    for density, size in zip((0.5, 0.5, 0.3, 0.6), expected, strict=True):
        expert = Source(llama_family.models[1], parameters={"weight": 0.4, "density": density})
        recipe = Recipe(method="ties", models=(expert,), base_model=llama_family.base)
        found = dict(merged_tensors(recipe, models, memory=memory))
        assert memory.derived == size * numbers
        for name, tensor in merged_tensors(recipe, models):
            assert torch.equal(tensor, found[name])


def counted(model):
    """An open checkpoint, and the names of the tensors that were read from it."""
    checkpoint, read = open_checkpoint(model), []

    def reading(name, read_one=checkpoint._read):
        read.append(name)
        return read_one(name)

    return replace(checkpoint, _read=reading), read


def merge_all(models, memory, device, method="ties"):
    """Merge every tensor, as a worker on that device does; `meta` computes shapes only."""
    recipe = Recipe(
        method=method,
        models=tuple(Source(m, parameters={"weight": 0.4}) for m in list(models)[1:]),
        base_model=next(iter(models)) if METHODS[method].uses_base else None,
    )
    for _ in merged_tensors(recipe, models, device=device, memory=memory):
        pass


@pytest.fixture
def bfloat16_family(llama_family, tmp_path):
    """The same models, stored in half the bytes."""
    folders = []
    for model in llama_family.models:
        folder = tmp_path / Path(model).name
        shutil.copytree(model, folder)
        tensors = load_file(folder / "model.safetensors")
        stored = {name: tensor.bfloat16() for name, tensor in tensors.items()}
        save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
        folders.append(str(folder))
    return tuple(folders)


@pytest.mark.parametrize("method", ["task_arithmetic", "linear"])
def test_a_device_keeps_each_model_once_as_it_is_stored(method, bfloat16_family):
    opened = {model: counted(model) for model in bfloat16_family}
    models = {model: checkpoint for model, (checkpoint, _) in opened.items()}
    memory = Memory(10**9)
    merge_all(models, memory, "meta", method)
    used = list(models)[method == "linear" :]
    stored = sum(h.nbytes for model in used for h in models[model].tensors.values())
    assert memory.used == stored
    for _, read in opened.values():
        read.clear()
    merge_all(models, memory, "meta", method)
    assert not any(read for _, read in opened.values())


def test_what_a_device_has_no_room_for_is_copied_once_a_merge(bfloat16_family):
    opened = {model: counted(model) for model in bfloat16_family}
    models = {model: checkpoint for model, (checkpoint, _) in opened.items()}
    merge_all(models, Memory(0), "meta", "task_arithmetic")
    for checkpoint, read in opened.values():
        assert sorted(read) == sorted(checkpoint.tensors)


@pytest.mark.parametrize("method", ["task_arithmetic", "linear"])
def test_on_a_cpu_only_task_vectors_are_kept(method, bfloat16_family):
    models = {model: open_checkpoint(model) for model in bfloat16_family}
    numbers = sum(header.numel for header in models[bfloat16_family[0]].tensors.values())
    memory = Memory(10**9)
    for _ in range(2):
        merge_all(models, memory, "cpu", method)
    experts = len(models) - 1
    assert memory.used == (4 * experts * numbers if method == "task_arithmetic" else 0)


def test_an_input_is_never_kept_in_two_forms(llama_family):
    """Computed inputs (adapters) are kept as the first method reads them, whatever the next one reads."""
    for order in (("linear", "task_arithmetic"), ("task_arithmetic", "linear")):
        opened = {m: open_checkpoint(m) for m in llama_family.models}
        models = {m: replace(one, adapted=frozenset(one.tensors)) for m, one in opened.items()}
        memory = Memory(10**9)
        for method in order:
            merge_all(models, memory, "cpu", method)
        numbers = sum(header.numel for header in models[llama_family.base].tensors.values())
        assert memory.used == 4 * numbers * len(models)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("method", ["ties", "dare_ties"])
def test_what_an_adapter_leaves_as_it_is_is_kept_once(device, method, llama_family):
    base = open_checkpoint(llama_family.base)
    adapters = {name: replace(base, name=name, adapted=frozenset({NAME})) for name in "ab"}
    memory = Memory(10**9)
    merge_all({base.name: base, **adapters}, memory, device, method)
    numbers = sum(header.numel for header in base.tensors.values())
    kept = 2 * 4 * base.tensors[NAME].numel + (4 * numbers if device == "meta" else 0)
    norms = memory.used - memory.derived - kept
    assert 0 <= norms <= 2 * 8 * len(base.tensors)
