import pytest

from evomerge.candidate import Conditional
from evomerge.config import Campaign
from evomerge.errors import CampaignError
from evomerge.merge.methods import METHODS
from evomerge.space import Space

WEIGHT = {"low": 0.0, "high": 1.0}


def test_one_dimension_for_each_expert_layer_group_and_component(make_space):
    space = make_space(
        method="task_arithmetic", layers=2, components=["mlp"], parameters={"weight": WEIGHT}
    )
    assert list(space.distributions) == [
        "weight/a/0-2/mlp",
        "weight/b/0-2/mlp",
        "weight/a/0-2/rest",
        "weight/b/0-2/rest",
        "weight/a/2-4/mlp",
        "weight/b/2-4/mlp",
        "weight/a/2-4/rest",
        "weight/b/2-4/rest",
    ]


def test_per_says_what_a_parameter_differs_by(make_space):
    parameters = {"weight": WEIGHT, "density": {"low": 0.1, "high": 1.0, "per": ["expert"]}}
    space = make_space(method="ties", layers=2, components=["mlp"], parameters=parameters)
    densities = [name for name in space.distributions if name.startswith("density")]
    assert densities == ["density/a", "density/b"]


def test_a_point_becomes_slices_with_filters_and_the_base_among_the_sources(make_space):
    parameters = {"weight": WEIGHT, "lambda": {"low": 0.5, "high": 2.0}, "normalize": False}
    space = make_space(
        method="task_arithmetic", layers=2, components=["mlp"], parameters=parameters
    )
    point = {name: i / 100 for i, name in enumerate(space.distributions)}
    recipe = space.candidate(point).recipe()
    assert recipe.method == "task_arithmetic"
    assert recipe.base_model == "/base"
    assert recipe.parameters == {"normalize": False}
    assert recipe.seed == 7
    first, second = recipe.slices
    assert [source.model for source in first.sources] == ["/base", "/a", "/b"]
    assert [source.layer_range for source in second.sources] == [(2, 4)] * 3
    assert first.sources[0].parameters == {}
    assert first.sources[1].parameters["weight"] == (
        Conditional(point["weight/a/0-2/mlp"], "mlp"),
        Conditional(point["weight/a/0-2/rest"]),
    )
    assert second.parameters["lambda"] == (
        Conditional(point["lambda/2-4/mlp"], "mlp"),
        Conditional(point["lambda/2-4/rest"]),
    )


def test_a_method_without_base_lists_only_the_experts(make_space):
    space = make_space(method="linear", parameters={"weight": WEIGHT})
    recipe = space.candidate({"weight/a": 0.25, "weight/b": 0.5}).recipe()
    assert recipe.base_model is None
    assert [source.parameters for source in recipe.slices[0].sources] == [
        {"weight": 0.25},
        {"weight": 0.5},
    ]


def test_a_searched_method_is_the_one_with_the_highest_score(make_space):
    parameters = {"weight": WEIGHT, "density": {"low": 0.1, "high": 1.0, "per": []}}
    space = make_space(method=["task_arithmetic", "ties"], parameters=parameters)
    assert {"method/task_arithmetic", "method/ties", "density"} <= set(space.distributions)
    point = {"weight/a": 0.1, "weight/b": 0.2, "density": 0.5}
    ties = space.candidate({**point, "method/task_arithmetic": 0.2, "method/ties": 0.9})
    plain = space.candidate({**point, "method/task_arithmetic": 0.5, "method/ties": 0.5})
    assert (ties.method, plain.method) == ("ties", "task_arithmetic")
    assert ties.own == {"weight": (((0.1, 0.2),),), "density": (((0.5, 0.5),),)}
    assert plain.own == {"weight": (((0.1, 0.2),),)}  # it takes no density


def test_groups_that_do_not_fit_the_models_are_refused(make_space):
    with pytest.raises(CampaignError, match="5 groups"):
        make_space(method="linear", layers=5, parameters={"weight": WEIGHT})


def test_all_choices_come_first_and_are_in_every_trial(make_space, draw):
    space = make_space(method=["ties", "dare_linear"], subsets=True, parameters={"weight": WEIGHT})
    assert list(space.distributions) == [
        "method/ties", "method/dare_linear", "use/a", "use/b", "weight/a", "weight/b",
    ]  # fmt: skip
    for seed in range(20):
        assert space.candidate(draw(space, seed)).inputs() == ("/base", "/a", "/b")


def test_ranges_may_be_signed_or_logarithmic(make_space):
    parameters = {
        "weight": {"low": -1.0, "high": 2.0},
        "lambda": {"low": 0.1, "high": 10.0, "log": True},
    }
    found = make_space(method="ties", parameters=parameters).distributions
    assert (found["weight/a"].low, found["weight/a"].log) == (-1.0, False)
    assert (found["lambda"].high, found["lambda"].log) == (10.0, True)


def test_the_middle_chooses_a_method(make_space):
    space = make_space(method=["ties", "linear"], parameters={"weight": WEIGHT})
    assert space.method(space.middle("linear")) == "linear"
    assert space.middle("linear")["weight/a"] == 0.5


def test_a_stored_campaign_is_enough_to_read_its_points():
    campaign = Campaign.model_validate(
        {
            "name": "old",
            "models": {"base": "zoo:base", "experts": ["zoo:a", "zoo:b"]},
            "space": {"method": "ties", "layers": 2, "parameters": {"weight": WEIGHT}},
            "objectives": [{"task": "t", "metric": "acc"}],
            "search": {"seed": 3},
        }
    )
    space = Space.of(campaign, 4, METHODS)
    assert list(space.family.experts) == ["a", "b"]
    assert (space.seed, space.groups) == (3, ((0, 2), (2, 4)))
    assert "weight/b/2-4" in space.distributions
