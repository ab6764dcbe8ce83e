import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.errors import CampaignError
from evomerge.space import layer_groups
from evomerge.space.groups import mean_overlap, regrouped


@given(st.integers(1, 80), st.data())
def test_groups_cover_all_layers_in_order_and_as_evenly_as_can_be(layers, data):
    count = data.draw(st.integers(1, layers))
    groups = layer_groups(count, layers)
    assert [layer for start, stop in groups for layer in range(start, stop)] == list(range(layers))
    sizes = [stop - start for start, stop in groups]
    assert len(groups) == count
    assert max(sizes) - min(sizes) <= 1


def test_each_is_one_group_a_layer():
    assert layer_groups("each", 3) == ((0, 1), (1, 2), (2, 3))


def test_explicit_pairs_are_kept():
    assert layer_groups(((0, 1), (1, 4)), 4) == ((0, 1), (1, 4))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (5, "found 5 groups, but the models have 4 layers"),
        (((0, 2), (3, 4)), r"\[3, 4\), expected one that starts at layer 2"),
        (((0, 2), (1, 4)), r"\[1, 4\), expected one that starts at layer 2"),
        (((0, 0), (0, 4)), r"\[0, 0\)"),
        (((0, 2),), "end at layer 2, but the models have 4 layers"),
    ],
)
def test_what_does_not_fit_is_refused(layers, message):
    with pytest.raises(CampaignError, match=message):
        layer_groups(layers, 4)


@given(st.integers(1, 30), st.data())
def test_overlaps_are_shares_of_the_old_groups(layers, data):
    old, new = (layer_groups(data.draw(st.integers(1, layers)), layers) for _ in range(2))
    overlap = mean_overlap(old, new)
    assert overlap.shape == (len(new), len(old))
    assert overlap.sum(axis=1) == pytest.approx(1.0)
    assert (mean_overlap(old, old) == np.eye(len(old))).all()


def test_an_overlap_is_by_layers():
    assert mean_overlap(((0, 2), (2, 6)), ((0, 3), (3, 6)))[0] == pytest.approx([2 / 3, 1 / 3])


def test_regrouped_values_are_means_by_shares():
    values = np.array([1.0, 4.0]).reshape(2, 1, 1)
    assert regrouped(np.array([[2 / 3, 1 / 3]]), values).item() == pytest.approx(2.0)
