"""What is kept from one merge to the next, and what a method sees."""

from __future__ import annotations

import pytest
import torch

from evomerge.merge import Memory, open_checkpoint
from evomerge.merge.masks import largest
from evomerge.merge.resident import Inputs

NAME = "model.layers.0.mlp.up_proj.weight"


def test_memory_keeps_what_fits_and_never_more():
    memory, built = Memory(100), []

    def build(value):
        def make():
            built.append(value)
            return (torch.tensor(value),)

        return make

    for _ in range(2):
        assert memory.get("a", 60, build(1))[0] == 1
        assert memory.get("b", 60, build(2))[0] == 2
    assert built == [1, 2, 2]
    assert memory.used == 60
    assert memory.has("a")
    assert not memory.has("b")
    assert memory.has_room(40)
    assert not memory.has_room(41)


def test_memory_keeps_one_variant_in_a_place():
    memory = Memory(10)
    for variant in (1, 2, 2, 1):
        found = memory.get("u", 10, lambda v=variant: (torch.tensor(v),), variant=variant)
        assert found[0] == variant
    assert memory.used == 10


@pytest.fixture(params=[0, 10**9])
def inputs(request, llama_family):
    models = llama_family.models[:2]
    return Inputs(
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
    assert inputs.others == (1,)
    assert inputs.models == tuple(llama_family.models[:2])
