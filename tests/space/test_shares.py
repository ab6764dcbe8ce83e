import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.space.dimensions import scaled, scaled_gradients, within

VALUES = st.lists(st.floats(0, 2), min_size=3, max_size=3).map(np.array)
ALL = np.ones(3)


@given(VALUES, st.floats(0.1, 5))
def test_they_add_up_and_keep_their_proportions(values, total):
    found = scaled(values, total, ALL)
    assert found.sum() == pytest.approx(total)
    assert found * values.sum() == pytest.approx(values * total) or values.sum() == 0


def test_where_all_are_0_those_that_take_part_share_equally():
    part = np.array([1.0, 0.0, 1.0])
    assert scaled(np.zeros((2, 3)), 3.0, part).tolist() == [[1.5, 0.0, 1.5]] * 2


@given(st.lists(st.floats(0.1, 2), min_size=3, max_size=3).map(np.array), st.floats(0.1, 5))
def test_gradients_agree_with_central_differences(values, total):
    gradients, step = np.array([0.3, -1.0, 2.0]), 1e-6
    found = scaled_gradients(values, total, ALL, gradients)
    for place in range(3):
        up, down = (values + sign * step * np.eye(3)[place] for sign in (1, -1))
        change = (scaled(up, total, ALL) - scaled(down, total, ALL)) @ gradients / (2 * step)
        assert found[place] == pytest.approx(change, rel=1e-5, abs=1e-7)


def test_at_0_gradients_point_to_the_better_share():
    found = scaled_gradients(np.zeros(3), 1.0, ALL, np.array([0.0, 0.0, 3.0]))
    assert found.tolist() == pytest.approx([-1.0, -1.0, 2.0])


@given(VALUES)
def test_what_is_too_large_is_shrunk_with_the_others(values):
    high = np.array([1.0, 0.5, 2.0])
    found = within(values, high)
    assert (found <= high + 1e-12).all()
    assert scaled(found, 1.0, ALL) == pytest.approx(scaled(values, 1.0, ALL))
    assert (found == values).all() or not (values <= high).all()
