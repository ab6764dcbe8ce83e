import pytest

from evomerge.candidate import mergekit_yaml
from evomerge.kinds import read

WEIGHT = {"low": 0.0, "high": 1.0}


def test_a_sum_holds_in_every_place(make_space, draw, numbers):
    space = make_space(
        method="linear", layers=2, components=["mlp"], parameters={"weight": {**WEIGHT, "sum": 1.0}}
    )
    found = numbers(space.candidate(draw(space)))
    for group in range(2):
        for text in ("mlp", None):
            pair = [found[group, model, "weight", text] for model in ("/a", "/b")]
            assert sum(pair) == pytest.approx(1.0)


def test_an_expert_that_takes_no_part_has_weight_0(make_space, draw, numbers):
    space = make_space(
        method="ties",
        layers=2,
        subsets=True,
        parameters={"weight": WEIGHT, "density": {"low": 0.1, "high": 1.0}},
    )
    point = {**draw(space), "use/a": 0.1, "use/b": 0.9}
    found = numbers(space.candidate(point))
    assert found[0, "/a", "weight", None] == found[1, "/a", "weight", None] == 0.0
    assert found[1, "/b", "weight", None] == point["weight/b/2-4"]
    assert found[0, "/a", "density", None] == point["density/a/0-2"]


def test_a_fixed_weight_can_be_switched_off(make_space, numbers):
    space = make_space(method="ties", subsets=True, parameters={"weight": 0.5, "density": 0.3})
    recipe = space.candidate({"use/a": 1.0, "use/b": 0.0})
    assert recipe.fixed == {"density": 0.3}
    found = numbers(recipe)
    assert (found[0, "/a", "weight", None], found[0, "/b", "weight", None]) == (0.5, 0.0)


def test_a_fixed_expert_stands_in_the_recipe(make_space, numbers):
    weight = {**WEIGHT, "experts": {"a": 1, "b": {"low": -2.0, "high": -1.0}}}
    space = make_space(method="ties", parameters={"weight": weight})
    assert list(space.distributions) == ["weight/b"]
    found = numbers(space.candidate({"weight/b": -1.5}))
    assert found == {(0, "/a", "weight", None): 1.0, (0, "/b", "weight", None): -1.5}


def test_the_masks_are_the_campaigns(make_space, draw):
    space = make_space(method="dare_linear", parameters={"weight": WEIGHT})
    assert {space.candidate(draw(space, seed)).seed for seed in range(3)} == {7}


def test_a_recipe_of_a_point_survives_its_file(make_space, draw):
    space = make_space(
        method="dare_linear",
        layers=2,
        components=["mlp"],
        subsets=True,
        parameters={"weight": {**WEIGHT, "sum": 1.0}, "lambda": WEIGHT},
    )
    merge = space.candidate(draw(space))
    assert mergekit_yaml.loads(merge.file()) == merge.recipe()
    assert read(merge.text()) == merge
    assert read(merge.text()).text() == merge.text()
