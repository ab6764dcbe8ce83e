"""Effects are equal where the numbers mean the same, and differ where they do not."""

from __future__ import annotations

import math

import pytest

from evomerge.merge.methods.method import SUM, Effect, as_written, numbers, rounded, summed


def test_factors_that_float32_cannot_tell_apart_are_one_sum():
    tenths = 0.1 + 0.2
    assert tenths != 0.3
    assert summed({0: tenths, 1: 1.0}) == summed({0: 0.3, 1: 1.0}) == Effect(SUM, {0: 0.3, 1: 1.0})
    assert summed({0: 0.3 + 1e-7}) != summed({0: 0.3})


@pytest.mark.parametrize("nothing", [0.0, -0.0, 1e-12, -1e-12])
def test_a_factor_of_0_leaves_its_input_out(nothing):
    assert summed({0: nothing, 1: 0.5, 2: nothing}) == Effect(SUM, {1: 0.5})


def test_as_written_every_number_counts_and_so_does_which_input_is_the_base():
    shared, own = {"normalize": True}, ({"weight": 0.5}, {"weight": 0.0})
    found = as_written(shared, own, 0)
    assert set(found.parts) == {0, 1}
    assert found == as_written(dict(shared), ({"weight": 0.5 + 1e-12}, {"weight": -0.0}), 0)
    assert found != as_written(shared, own, 1)
    assert found != as_written({"normalize": False}, own, 0)
    assert found != as_written(shared, ({"weight": 0.5}, {"weight": 0.1}), 0)


def test_values_are_compared_whatever_their_order():
    one, other = {"weight": 0.5, "density": 0.25}, {"density": 0.25, "weight": 0.5}
    assert numbers(one) == numbers(other)
    assert hash(numbers(one)) == hash(numbers(other))
    assert numbers(one) != numbers({"weight": 0.25, "density": 0.5})


def test_a_truth_value_stays_one_and_a_zero_has_no_sign():
    assert rounded(True) is True
    assert math.copysign(1, rounded(-1e-12)) == 1
