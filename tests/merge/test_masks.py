"""Random numbers that only key and position decide, and exact trimming."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.merge import fused, masks
from evomerge.merge.masks import (
    GOLDEN,
    MIX1,
    MIX2,
    compact_order,
    largest,
    magnitude_order,
    mask_key,
    ranked,
    uniform,
)

MASK = (1 << 64) - 1


def reference(key: int, position: int) -> float:
    """splitmix64 in Python's integers."""
    z = (key + (position // 2 + 1) * GOLDEN) & MASK
    z = ((z ^ (z >> 30)) * MIX1) & MASK
    z = ((z ^ (z >> 27)) * MIX2) & MASK
    z ^= z >> 31
    half = z >> 32 if position % 2 else z & 0xFFFFFFFF
    return (half >> 8) / 2**24


@settings(deadline=None)
@given(st.integers(0, MASK), st.integers(0, 300_000))
def test_numbers_are_splitmix64(key, position):
    assert uniform(key, position + 1)[position].item() == reference(key, position)


def test_splitmix64_is_the_published_one():
    """The first outputs for seed 1234567, as in Vigna's splitmix64.c and the JDK."""
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    for number, value in enumerate(expected):
        z = value >> 8 & 0xFFFFFF
        assert reference(1234567, 2 * number) == z / 2**24


@pytest.mark.parametrize("count", [0, 1, 2, 7, 1 << 17, (1 << 18) + 3])
def test_a_prefix_is_a_prefix(count):
    assert torch.equal(uniform(5, count), uniform(5, 300_000)[:count])
    assert uniform(5, count).shape == (count,)


def test_numbers_are_uniform_and_independent():
    numbers = uniform(mask_key(0, 1, "w"), 200_000).double().numpy()
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = np.histogram(numbers, bins=100, range=(0, 1))[0]
    assert ((counts - 2000) ** 2 / 2000).sum() < 150  # chi-square, 99 degrees of freedom
    others = uniform(mask_key(0, 2, "w"), 200_000).double().numpy()
    for a, b in ((numbers, others), (numbers[1:], numbers[:-1]), (numbers[2:], numbers[:-2])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.01


def test_keys_differ_by_seed_expert_and_tensor():
    keys = {mask_key(s, e, t) for s in range(5) for e in range(5) for t in ("a", "b", "1/a")}
    assert len(keys) == 75


@given(st.floats(0, 1), st.floats(0, 1))
def test_masks_of_nearby_densities_are_nested(a, b):
    numbers = uniform(7, 1000)
    low, high = sorted((a, b))
    assert not ((numbers < low) & ~(numbers < high)).any()


tensors = st.lists(
    st.one_of(st.floats(-2, 2, width=32), st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.0])),
    min_size=1,
    max_size=60,
).map(lambda values: torch.tensor(values, dtype=torch.float32))


@settings(deadline=None)
@given(tensors, st.data())
def test_exactly_the_largest_are_kept(delta, data):
    count = data.draw(st.integers(1, delta.numel()))
    by_rank = sorted(range(delta.numel()), key=lambda i: (-abs(delta[i].item()), i))[:count]
    expected = torch.zeros_like(delta)
    expected[by_rank] = delta[by_rank]
    for order in (None, magnitude_order(delta)):
        kept = largest(delta, count, order)
        assert torch.equal(kept, expected)
        assert kept.data_ptr() != delta.data_ptr()


@settings(deadline=None)
@given(tensors, st.data())
def test_trims_are_nested(delta, data):
    counts = sorted(data.draw(st.tuples(*[st.integers(1, delta.numel())] * 2)))
    few, many = (largest(delta, count) for count in counts)
    assert not ((few != 0) & (many == 0)).any()


@pytest.fixture
def bfloat16_deltas():
    """Differences of bfloat16 numbers: a few hundred magnitudes for 20,000 entries."""
    base = 0.02 * torch.randn(20_000)
    expert = base + 0.001 * torch.randn(20_000)
    return expert.bfloat16().float() - base.bfloat16().float()


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_of_equal_magnitudes_at_the_threshold_the_first_are_kept(density, bfloat16_deltas):
    """The same entries with a sorted order at hand and without."""
    delta, count = bfloat16_deltas, int(density * 20_000)
    kept = largest(delta, count)
    assert torch.equal(kept, largest(delta, count, magnitude_order(delta)))
    bound = delta.abs().sort(descending=True).values[count - 1]
    equal = (delta.abs() == bound).nonzero().view(-1)
    assert len(equal) > 10
    above = int((delta.abs() > bound).sum())
    assert torch.equal(kept[equal] != 0, torch.arange(len(equal)) < count - above)


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_only_entries_on_the_threshold_can_differ_from_mergekits(density, bfloat16_deltas):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mergekit's own
        from mergekit.sparsify import magnitude
    ours = largest(bfloat16_deltas, int(density * 20_000))
    theirs = magnitude(bfloat16_deltas, density)
    assert torch.equal(ours.abs().sort().values, theirs.abs().sort().values)
    bound = ours[ours != 0].abs().min()
    assert (bfloat16_deltas[ours != theirs].abs() == bound).all()


def last_kept(delta, count):
    """Magnitude and position of the last of the largest entries, by sorting all of them."""
    position = sorted(range(len(delta)), key=lambda i: (-abs(delta[i].item()), i))[count - 1]
    return abs(delta[position].item()), position


def finder(delta):
    """Where one of equal magnitudes is, by looking at each."""

    def find(start, stop, bits, number):
        magnitudes = delta[start:stop].abs().numpy().view(np.int32)
        return start + int(np.flatnonzero(magnitudes == bits)[number - 1])

    return find


@settings(deadline=None)
@given(tensors, st.data())
def test_any_entry_of_the_order_is_found(delta, data):
    count = data.draw(st.integers(1, delta.numel()))
    expected = last_kept(delta, count)
    if fused.available():
        assert fused.selected(delta.numpy(), np.zeros_like(delta.numpy()), count) == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masks, "GROUP", 8)
        order = compact_order(lambda a, b: delta[a:b], len(delta), most=10**6)
        assert ranked(order, count, finder(delta)) == expected


@pytest.mark.parametrize("fine", [0, 50, 20_000])
def test_an_order_of_bfloat16_differences_is_compact(fine, bfloat16_deltas, monkeypatch):
    """Entries that no bfloat16 number is are sorted with the others."""
    monkeypatch.setattr(masks, "GROUP", 1 << 10)
    delta = bfloat16_deltas.clone()
    delta[:fine] *= 1.0001
    order = compact_order(lambda a, b: delta[a:b], len(delta), most=10**6)
    size = sum(part.nbytes for part in order)
    assert size < 20_000 * (8 + 1 if fine == 20_000 else 4)
    for count in (1, 2, 37, 5_000, 10_000, 19_990, 20_000):
        assert ranked(order, count, finder(delta)) == last_kept(delta, count)
    if fine:
        assert compact_order(lambda a, b: delta[a:b], len(delta), most=8) == ()
