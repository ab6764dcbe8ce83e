"""Spaces of the real merge methods: alone, together, and what one value cannot mean in two of them."""

from __future__ import annotations

import pytest

from evomerge import config as campaign
from evomerge.errors import CampaignError
from evomerge.kinds import KINDS
from evomerge.merge.methods import METHODS
from evomerge.space import Family

RANGES = {
    "weight": {"low": 0.0, "high": 1.2},
    "density": {"low": 0.2, "high": 1.0},
    "gamma": {"low": 0.005, "high": 0.1, "log": True},
    "t": {"low": 0.0001, "high": 0.01, "log": True},
    "select_topk": {"low": 0.1, "high": 1.0},
    "r": {"low": 0.0, "high": 0.5},
    "lambda": {"low": 0.5, "high": 1.5},
}
OF_ONE = [name for name, method in METHODS.items() if method.uses_base and method.min_models < 2]
OF_TWO = [name for name, method in METHODS.items() if method.max_models in (None, 2)]


def space_of(methods, experts, **parameters):
    takes = {name for method in methods for name in METHODS[method].parameters}
    ranges = {name: one for name, one in RANGES.items() if name in takes}
    settings = campaign.SpaceSettings.model_validate(
        {"kind": "merge", "method": methods, "layers": 2, "parameters": {**ranges, **parameters}}
    )
    named = {f"e{index}": f"/e{index}" for index in range(experts)}
    KINDS["merge"].check(settings)
    return KINDS["merge"].space(settings, Family("/base", named, 4, "float32"), 0)


@pytest.mark.parametrize(("methods", "experts"), [(OF_ONE, 1), (OF_TWO, 2)])
def test_all_methods_are_searched_together(methods, experts, draw):
    space = space_of(methods, experts)
    assert {f"method/{name}" for name in methods} <= set(space.distributions)
    for seed, name in enumerate(methods):
        point = draw(space, seed) | {f"method/{one}": float(one == name) for one in methods}
        merge = space.candidate(point)
        assert merge.method == name
        takes = METHODS[name].parameters
        assert set(merge.own) == {key for key in RANGES if key in takes and takes[key].per_source}
        assert set(merge.shared) == {
            key for key in RANGES if key in takes and not takes[key].per_source
        }
        # Where a base may be told apart, it is.
        assert ("/base" in merge.inputs()) == METHODS[name].uses_base
        region = space.regions.at(point)
        smooth = {name.split("/")[0] for name in space.regions.differentiable(region)}
        assert smooth == {key for key in RANGES if key in takes and takes[key].differentiable}


def test_whole_numbers_and_booleans_are_fixed():
    space = space_of(["karcher", "model_stock"], 2, max_iter=3, filter_wise=True)
    found = {name: space.candidate(space.middle(name)).fixed for name in ("karcher", "model_stock")}
    assert found == {"karcher": {"max_iter": 3}, "model_stock": {"filter_wise": True}}
    for value, message in (
        ({"low": 1, "high": 9}, "max_iter is a whole number, it has no range"),
        (2.5, "found 2.5, expected a whole number"),
        (-1, "found -1, expected max_iter in [0, inf]"),
        (True, "found True, expected a number"),
    ):
        with pytest.raises(CampaignError) as caught:
            space_of(["karcher"], 2, max_iter=value)
        assert str(caught.value).startswith(f"space.parameters.max_iter: {message}")


@pytest.mark.parametrize("value", [0.1, {"low": 0.05, "high": 0.2}])
def test_one_epsilon_cannot_be_dellas_and_rams(value):
    with pytest.raises(CampaignError) as caught:
        space_of(["della", "ram"], 2, epsilon=value)
    assert str(caught.value).startswith(
        "space.parameters.epsilon: epsilon is a number of each model in one of the methods"
    )
    assert space_of(["della", "ties"], 2, epsilon=value).candidate


def test_values_are_checked_for_each_method_that_takes_them():
    with pytest.raises(CampaignError) as caught:
        space_of(["della", "linear"], 2, epsilon=2.0)
    assert "found 2, expected epsilon in [0, 1]" in str(caught.value)


@pytest.mark.parametrize(
    ("methods", "experts", "message"),
    [
        (["nuslerp"], 3, "nuslerp takes exactly 2 model(s) besides the base, found 3"),
        (["ties", "nuslerp"], 1, "nuslerp takes exactly 2 model(s) besides the base, found 1"),
        (["model_stock"], 1, "model_stock takes at least 2 model(s) besides the base, found 1"),
        (["arcee_fusion"], 2, "arcee_fusion takes exactly 1 model(s) besides the base, found 2"),
        (["nearswap"], 2, "nearswap takes exactly 1 model(s) besides the base, found 2"),
    ],
)
def test_a_number_of_experts_that_a_method_does_not_take(methods, experts, message):
    with pytest.raises(CampaignError) as caught:
        space_of(methods, experts)
    assert message in str(caught.value)
