from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.racing import block_order, disagreement
from evomerge.trial import Estimate, Failure, FailureKind, Outcome, Pruned, TaskScores

IDS = {"t": ("a", "b", "c", "d")}


def outcome(*values: float, ids: tuple[str, ...] = IDS["t"]) -> Outcome:
    return Outcome({"t": TaskScores(ids, {"acc": values}, {"acc": Estimate(sum(values))})})


def spread(outcomes: list[Outcome], sign: int = 1) -> tuple[float, ...]:
    return disagreement(outcomes, {"t": "acc"}, {"t": sign}, IDS)["t"]


def test_items_on_which_good_models_differ_come_before_those_that_only_a_weak_one_misses():
    weak, good, better = outcome(0, 0, 0, 0), outcome(1, 0, 1, 0), outcome(1, 1, 1, 0)
    found = spread([weak, good, better])
    assert found[1] > found[0] == found[2] > found[3] > 0
    upside_down = spread([weak, good, better], sign=-1)  # an error: the first is the best
    assert upside_down[0] > upside_down[1]


def test_values_are_matched_by_id_and_only_full_outcomes_count():
    first, second = outcome(1, 1, 0, 0), outcome(1, 0, 0, 0)
    turned = outcome(0, 0, 0, 1, ids=("d", "c", "b", "a"))
    failed = Outcome(failure=Failure(FailureKind.TASK, "no"))
    pruned = Outcome({"t": TaskScores(("a",), {"acc": (0.0,)}, {})}, pruned=Pruned("behind", 1))
    assert spread([first, turned, failed, pruned]) == spread([first, second])


def test_without_disagreement_items_are_alike():
    assert spread([]) == (1.0,) * 4
    assert spread([outcome(1, 0, 1, 0), outcome(1, 0, 1, 0)]) == (1.0,) * 4
    broken = outcome(math.nan, 0, 0, 0)
    assert spread([broken, outcome(1, 0, 1, 0)]) == (1.0,) * 4


@given(
    st.lists(st.lists(st.floats(0.01, 1), min_size=1, max_size=30), min_size=1, max_size=4),
    st.integers(1, 6),
    st.data(),
)
def test_blocks_hold_every_item_once(spreads, blocks, data):
    weight = st.floats(0.1, 10)
    tasks = {f"t{number}": values for number, values in enumerate(spreads)}
    weights = {task: data.draw(weight) for task in tasks}
    found = block_order(tasks, weights, blocks)
    assert 1 <= len(found) <= blocks
    for task, values in tasks.items():
        scored = [position for block in found for position in block.get(task, ())]
        assert sorted(scored) == list(range(len(values)))
        assert task in found[0]
        for number, block in enumerate(found[1:], start=1):
            before = [values[p] for earlier in found[:number] for p in earlier.get(task, ())]
            assert all(min(before) >= values[p] for p in block.get(task, ()))
    assert all(block and list(p) == sorted(p) for block in found for p in block.values())
    assert found == block_order(tasks, weights, blocks)


def test_blocks_are_balanced_over_tasks_by_weight():
    even = block_order({"a": [1.0] * 50, "b": [1.0] * 50}, {"a": 1.0, "b": 1.0})
    assert [{task: len(p) for task, p in block.items()} for block in even] == [
        {"a": 10, "b": 10}
    ] * 5
    heavy = block_order({"a": [1.0] * 50, "b": [1.0] * 50}, {"a": 3.0, "b": 1.0})
    assert len(heavy[0]["a"]) == pytest.approx(15, abs=1)
    assert len(heavy[0]["b"]) == pytest.approx(5, abs=1)
