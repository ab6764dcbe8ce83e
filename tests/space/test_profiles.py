import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.fft import dct

from evomerge.space.groups import layer_groups
from evomerge.space.profiles import basis, coefficient_range, fitted

FINITE = st.floats(-2, 2)


@given(st.integers(1, 30), st.data())
def test_with_one_group_a_layer_the_basis_is_a_discrete_cosine_transform(layers, data):
    values = np.array(data.draw(st.lists(FINITE, min_size=layers, max_size=layers)))
    transformed = dct(values, type=2) / layers
    transformed[0] /= 2
    found = fitted(values, layer_groups("each", layers), layers)
    assert found == pytest.approx(transformed, abs=1e-9)


@given(st.integers(1, 12), st.data())
def test_a_curve_is_found_again_from_its_values(count, data):
    layers = data.draw(st.integers(count, 30))
    order = data.draw(st.integers(1, count))
    groups = layer_groups(count, layers)
    coefficients = np.array(data.draw(st.lists(FINITE, min_size=order, max_size=order)))
    values = basis(groups, order) @ coefficients
    assert fitted(values, groups, order) == pytest.approx(coefficients, abs=1e-8)


def test_the_fit_is_by_layers_not_by_groups():
    values = np.array([[0.0], [1.0]])
    assert fitted(values, ((0, 1), (1, 4)), 1) == pytest.approx(np.array([[0.75]]))


def test_depth_runs_from_the_first_layer_to_the_last():
    first, last = basis(((0, 5), (5, 10)), 2)[:, 1]
    assert (first, last) == pytest.approx((np.cos(np.pi / 4), np.cos(3 * np.pi / 4)))


def test_the_mean_has_the_range_and_faster_waves_less_of_it():
    assert coefficient_range(-1.0, 2.0, 0) == (-1.0, 2.0)
    assert coefficient_range(-1.0, 2.0, 1) == (-1.5, 1.5)
    assert coefficient_range(-1.0, 2.0, 3) == (-0.5, 0.5)
