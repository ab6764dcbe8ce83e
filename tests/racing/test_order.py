from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.candidate.trial import Race
from evomerge.racing import blocks
from evomerge.racing.order import item_order, looks


def race(sizes: dict[str, int], count: int = 8, **changes: int) -> Race:
    ones = dict.fromkeys(sizes, 1.0)
    expected = {task: (0.0,) * size for task, size in sizes.items()}
    made = Race(dict.fromkeys(sizes, "acc"), ones, dict.fromkeys(sizes, 1), ones, expected, ones)
    return replace(made, blocks=count, **changes)


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 40), min_size=1),
    st.integers(1, 10),
    st.integers(0, 99),
)
def test_blocks_hold_every_item_once_and_the_first_every_task(sizes, count, number):
    made = race(sizes, count, number=number)
    found = blocks(made)
    assert 1 <= len(found) <= count
    for task, size in sizes.items():
        scored = [position for block in found for position in block.get(task, ())]
        assert sorted(scored) == list(range(size))
        assert task in found[0]
    assert all(block and list(p) == sorted(p) for block in found for p in block.values())
    assert found == blocks(race(sizes, count, number=number))
    counts = [sum(map(len, block.values())) for block in found]
    assert looks(made) == tuple(sum(counts[: n + 1]) for n in range(len(counts)))


def test_blocks_are_of_equal_size():
    counts = [sum(map(len, block.values())) for block in blocks(race({"a": 64, "b": 256}))]
    assert counts == [40] * 8


@pytest.mark.parametrize("what", ["seed", "number"])
def test_every_trial_of_every_campaign_has_an_order_of_its_own_and_all_are_equally_likely(what):
    orders = [item_order(race({"a": 2, "b": 1}, **{what: n})) for n in range(3000)]
    counts = Counter(orders)
    assert len(counts) == 6
    assert all(abs(count - 500) < 100 for count in counts.values())  # 5 standard errors
