import numpy as np
import pytest

from evomerge.space.dimensions import Searched, is_per_source

GROUPS = ((0, 2), (2, 4))
BOTH = ("a", "b")


def searched(**changes):
    given = {"groups": GROUPS, "components": ("mlp", "rest"), "experts": BOTH}
    given["spans"] = ((0.0, 1.0),) * 2
    return Searched("weight", **{**given, **changes})


def test_places_are_layers_then_components_then_experts():
    one = searched()
    assert list(one.places)[:3] == ["weight/a/0-2/mlp", "weight/b/0-2/mlp", "weight/a/0-2/rest"]
    assert one.places["weight/b/2-4/rest"] == (1, 1, 1)
    assert len(one.places) == 8


def test_coordinates_and_params_are_inverse():
    one = searched()
    params = {name: number / 100 for number, name in enumerate(one.places)}
    assert one.params(one.coordinates(params)) == params


def test_params_are_put_back_into_their_ranges():
    one = searched(components=(None,), spans=((0.0, 1.0), (-2.0, -1.0)))
    found = one.params(np.array([[[5.0, 5.0]], [[-5.0, -5.0]]]))
    assert found == {
        "weight/a/0-2": 1.0,
        "weight/b/0-2": -1.0,
        "weight/a/2-4": 0.0,
        "weight/b/2-4": -2.0,
    }


def test_a_fixed_expert_has_no_dimension_and_its_value():
    one = searched(groups=((0, 4),), components=(None,), spans=((0.0, 1.0), (0.3, 0.3)))
    assert list(one.distributions()) == ["weight/a"]
    assert one.values({"weight/a": 0.9}).tolist() == [[[0.9, 0.3]]]


def test_ranges_are_those_of_the_settings():
    found = searched(log=True, spans=((0.1, 1.0), (0.2, 2.0))).distributions()["weight/b/0-2/mlp"]
    assert (found.low, found.high, found.log) == (0.2, 2.0, True)


def test_those_that_take_no_part_are_0_before_the_sum_is_made():
    one = searched(groups=((0, 4),), components=(None,), total=2.0)
    params = {"weight/a": 0.2, "weight/b": 0.6}
    assert one.values(params)[0, 0] == pytest.approx([0.5, 1.5])
    assert one.values(params, np.array([1.0, 0.0]))[0, 0] == pytest.approx([2.0, 0.0])


def test_a_shared_weight_gets_an_axis_of_experts_when_some_are_left_out():
    one = searched(components=(None,), experts=(None,), spans=((0.0, 1.0),))
    values = one.values({"weight/0-2": 0.5, "weight/2-4": 0.7}, np.array([1.0, 0.0]))
    assert values.tolist() == [[[0.5, 0.0]], [[0.7, 0.0]]]


def test_per_source_in_one_method_is_per_source(make_space):
    methods = make_space(method="ties", parameters={"weight": 1.0}).methods
    assert is_per_source("density", methods)
    assert not is_per_source("lambda", methods)
    assert not is_per_source("unheard of", methods)
