"""What is kept from one merge to the next: what fits, one variant in a place."""

from __future__ import annotations

import torch

from evomerge.merge.memory import Memory


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


def test_what_is_derived_leaves_room_for_inputs():
    memory = Memory(100, for_inputs=70)
    memory.get("order", 40, lambda: (torch.zeros(1),), derived=True)
    assert not memory.has("order")
    memory.get("numbers", 30, lambda: (torch.zeros(1),), derived=True)
    memory.get("input", 70, lambda: (torch.zeros(1),))
    assert memory.used == 100
    assert not memory.has_room(1)


def test_room_is_what_is_left_of_both_budgets():
    memory = Memory(100, for_inputs=70)
    assert memory.room == 30
    memory.get("input", 80, lambda: (torch.zeros(1),))
    assert memory.room == 20
    memory.get("order", 20, lambda: (torch.zeros(1),), derived=True)
    assert memory.room == 0


def test_what_a_gpus_merge_computes_on_the_host_takes_nothing_of_the_gpu():
    memory, on_gpu = Memory(100, on_host=1000), torch.zeros(10, device="meta")
    for key in ("left", "right", "cores"):  # 400 bytes each
        memory.get(key, None, lambda: (torch.zeros(100),), derived=True)
    assert [memory.has(key) for key in ("left", "right", "cores")] == [True, True, False]
    assert (memory.used, memory.used_on_host) == (0, 800)
    memory.get("order", None, lambda: (on_gpu,), derived=True)
    memory.get("input", 60, lambda: (torch.zeros(15),))  # of stated size: it is on the GPU
    assert (memory.used, memory.used_on_host) == (100, 800)
