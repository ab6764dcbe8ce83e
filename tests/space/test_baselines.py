import pytest

from evomerge.candidate import Vocabulary
from evomerge.merge.methods import METHODS
from evomerge.space.baselines import IDLE, LAMBDAS, TIES_DENSITY, WHOLE

WEIGHT = {"low": 0.0, "high": 1.2}


def by_name(space):
    return {baseline.name: baseline for baseline in space.baselines()}


def test_parents_average_lambdas_and_ties_are_all_there(make_space):
    found = by_name(make_space(method="task_arithmetic", parameters={"weight": WEIGHT}))
    grid = [f"task arithmetic λ={scale:g}" for scale in LAMBDAS]
    assert list(found) == ["base", "a", "b", "uniform average", *grid, "ties"]
    assert found["a"].candidate.method == "passthrough"
    assert found["a"].candidate.model_names() == ("/a",)
    assert found["uniform average"].candidate.method == "linear"
    assert found["ties"].candidate.fixed == {"weight": 1.0, "density": TIES_DENSITY}
    assert found["task arithmetic λ=0.4"].scale == 0.4


def test_parents_and_linear_merges_lie_in_a_task_arithmetic_space(make_space):
    found = by_name(make_space(method="task_arithmetic", parameters={"weight": WEIGHT}))
    assert found["base"].params == {"weight/a": 0.0, "weight/b": 0.0}
    assert found["b"].params == {"weight/a": 0.0, "weight/b": 1.0}
    assert found["uniform average"].params == {"weight/a": 0.5, "weight/b": 0.5}
    assert found["task arithmetic λ=1"].params == {"weight/a": 1.0, "weight/b": 1.0}
    assert found["ties"].params is None


def test_what_lies_outside_the_ranges_has_no_point(make_space):
    narrow = {"weight": {"low": 0.3, "high": 0.6}}
    found = by_name(make_space(method="task_arithmetic", parameters=narrow))
    assert found["base"].params is None
    assert found["a"].params is None
    assert found["uniform average"].params == {"weight/a": 0.5, "weight/b": 0.5}


@pytest.mark.parametrize("fixed", [{"normalize": True}, {"lambda": 0.5}])
def test_a_fixed_parameter_that_changes_the_model_has_no_point(make_space, fixed):
    found = by_name(make_space(method="task_arithmetic", parameters={"weight": WEIGHT, **fixed}))
    assert found["uniform average"].params is None


def test_undropped_dare_is_located_and_untuned_ties_is_not(make_space):
    density = {"low": 0.1, "high": 1.0, "per": ["expert"]}
    ties = make_space(method="ties", parameters={"weight": WEIGHT, "density": density})
    assert by_name(ties)["ties"].candidate.fixed["density"] == TIES_DENSITY
    assert by_name(ties)["ties"].params is None
    dare = make_space(method="dare_linear", parameters={"weight": WEIGHT, "density": density})
    assert by_name(dare)["b"].params == {
        "weight/a": 0.0, "weight/b": 1.0, "density/a": 1.0, "density/b": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize("method", ["breadcrumbs", "della_linear"])
@pytest.mark.parametrize("own", [{}, {"rescale": True}, {"rescale": False}])
def test_methods_that_keep_all_entries_are_task_arithmetic(make_space, method, own):
    number = {"breadcrumbs": "gamma", "della_linear": "epsilon"}[method]
    density = {"low": 0.2, "high": 1.0, "per": []}
    ranges = {"weight": WEIGHT, "density": density, number: {"low": 0.01, "high": 0.1, "per": []}}
    space = make_space(method=method, parameters=ranges | own)
    found = by_name(space)
    assert found["b"].params["weight/b"] == found["b"].params["density"] == 1.0
    assert found["task arithmetic λ=0.4"].params["weight/a"] == 0.4
    assert found["ties"].params is None
    narrow = make_space(method=method, parameters=ranges | {"density": 0.5})
    assert by_name(narrow)["b"].params is None


def test_a_plain_sum_lies_in_core_space_too(make_space):
    ranges = {"weight": WEIGHT, "density": {"low": 0.2, "high": 1.0, "per": []}}
    space = make_space(method="breadcrumbs", parameters={**ranges, "core_space": True})
    point = by_name(space)["task arithmetic λ=0.4"].params
    assert point == {"weight/a": 0.4, "weight/b": 0.4, "density": 1.0}


def test_their_idle_parameters_change_nothing():
    def effect(method, idle):
        takes = {name: one.default for name, one in METHODS[method].parameters.items()}
        given = takes | {"lambda": 1.0, "normalize": False, "density": 1.0}
        given |= dict.fromkeys(IDLE & set(takes), idle)
        own = [given | {"weight": weight} for weight in (0.0, 0.3, 0.7)]
        return METHODS[method].effect(given, own, 0)

    plain = effect("task_arithmetic", 0.0)
    assert all(effect(method, idle) == plain for method in WHOLE for idle in (0.0, 0.1, 1.0))


def test_with_a_searched_method_the_point_chooses_it(make_space):
    space = make_space(
        method=["linear", "dare_linear"], parameters={"weight": WEIGHT, "density": 1.0}
    )
    point = by_name(space)["task arithmetic λ=0.4"].params
    assert space.method(point) == "dare_linear"
    assert point["method/linear"] == 0.0


def test_wherever_a_baseline_has_a_point_the_point_is_the_same_model(make_space, numbers):
    spaces = [
        {"layers": "each", "parameters": {"weight": WEIGHT}},
        {"layers": 2, "subsets": True, "parameters": {"weight": WEIGHT}},
        {"components": ["mlp"], "parameters": {"weight": {**WEIGHT, "experts": {"a": 0.5}}}},
        {"parameters": {"weight": {"low": 0.0, "high": 1.0, "sum": 1.0}}},
    ]
    expected = {
        0: {"base", "a", "b", "uniform average", *(f"task arithmetic λ={s:g}" for s in LAMBDAS)},
        1: {"base", "a", "b", "uniform average", *(f"task arithmetic λ={s:g}" for s in LAMBDAS)},
        2: {"uniform average", "task arithmetic λ=0.5"},
        3: {"a", "b", "uniform average", "task arithmetic λ=0.5"},
    }
    weights = {"base": (0, 0), "a": (1, 0), "b": (0, 1), "uniform average": (0.5, 0.5)}
    for place, settings in enumerate(spaces):
        space = make_space(method="task_arithmetic", **settings)
        found = {b.name: b for b in space.baselines() if b.params is not None}
        assert set(found) == expected[place]
        for name, baseline in found.items():
            pair = weights.get(name, (baseline.scale, baseline.scale))
            values = numbers(space.candidate(baseline.params))
            for (_, model, _, _), value in values.items():
                assert value == pytest.approx(pair["/a/b".index(model) // 2])


def test_the_average_of_a_normalised_linear_space_is_found_at_either_scale(make_space):
    linear = {"method": "linear"}
    low = {"weight": {"low": 0.0, "high": 0.6}, "normalize": True}
    assert by_name(make_space(**linear, parameters=low))["uniform average"].params == {
        "weight/a": 0.5, "weight/b": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize("method", ["linear", "task_arithmetic"])
def test_with_a_vocabulary_every_recipe_names_all_models(make_space, draw, method):
    """A union, and the rows that a model borrows, are then the same in all of them."""
    vocabulary = Vocabulary("union")
    space = make_space(method=method, parameters={"weight": WEIGHT}, vocabulary=vocabulary)
    recipes = [*(one.candidate for one in space.baselines()), space.candidate(draw(space))]
    for recipe in recipes:
        assert recipe.vocabulary == vocabulary
        assert recipe.model_names() == ("/base", "/a", "/b")
    parent = by_name(space)["a"].candidate
    assert (parent.method, parent.experts) == ("linear", ("/base", "/a", "/b"))
    assert parent.own == {"weight": (((0.0, 1.0, 0.0),),)}
