from dataclasses import replace

import pytest

from evomerge.space import (
    Choice,
    choice_of,
    default_point,
    differentiable,
    first_choices,
    free,
    moved_to,
    neighbours,
)

WEIGHT = {"low": 0.0, "high": 1.2}
BOTH = {"weight": WEIGHT, "density": {"low": 0.2, "high": 0.9}}


@pytest.fixture
def space(make_space):
    return make_space(
        method=["task_arithmetic", "dare_linear", "slerp"],
        experts=("a", "b", "c"),
        subsets=True,
        parameters={**BOTH, "t": {"low": 0.0, "high": 1.0}},
    )


def test_a_search_begins_with_each_method_and_all_experts(space):
    assert [(one.method, one.experts) for one in first_choices(space)] == [
        (method, ("a", "b", "c")) for method in space.settings.method
    ]


def test_a_choice_sees_only_what_its_models_depend_on(space):
    everyone = ("a", "b", "c")
    assert free(space, Choice("task_arithmetic", everyone)) == tuple(f"weight/{e}" for e in "abc")
    assert free(space, Choice("dare_linear", ("a", "c"))) == (
        "weight/a", "weight/c", "density/a", "density/c",
    )  # fmt: skip
    assert free(space, Choice("slerp", everyone)) == ("t",)


def test_models_do_not_depend_on_the_other_dimensions(space, draw):
    for choice in first_choices(space)[:2]:
        one = default_point(space, choice)
        assert choice_of(space, one) == choice
        other = draw(space, 3)
        kept = {
            name: other[name] for name in other if "/" not in name or name[:3] in ("wei", "den")
        }
        mixed = {**one, **kept, **{name: one[name] for name in free(space, choice)}}
        assert space.candidate(mixed) == replace(
            space.candidate(one), seed=space.candidate(mixed).seed
        )


def test_defaults_are_the_methods_own_or_the_nearest_in_their_range(space):
    point = default_point(space, Choice("dare_linear", ("a", "b", "c")))
    assert {point[f"density/{name}"] for name in "abc"} == {0.9}  # its default is 1
    assert {point[f"weight/{name}"] for name in "abc"} == {0.6}  # it has none


def test_a_method_without_weights_leaves_nobody_out(space):
    point = {**default_point(space, Choice("slerp", ("a", "b", "c"))), "use/a": 0.0}
    assert choice_of(space, point).experts == ("a", "b", "c")
    assert neighbours(space, Choice("slerp", ("a", "b", "c"))) == ()


def test_neighbours_have_one_expert_less_or_more_and_are_never_empty(space, make_space):
    found = [one.experts for one in neighbours(space, Choice("task_arithmetic", ("a", "c")))]
    assert found == [("c",), ("a",), ("a", "b", "c")]
    assert all(one.experts for one in neighbours(space, Choice("task_arithmetic", ("b",))))
    fixed = make_space(method="ties", parameters=BOTH)
    assert neighbours(fixed, first_choices(fixed)[0]) == ()


def test_moved_to_another_choice_common_numbers_stay(space):
    there = default_point(space, Choice("dare_linear", ("a", "b")))
    here = {**default_point(space, Choice("task_arithmetic", ("a", "b", "c")))}
    here |= {"weight/a": 0.1, "weight/b": 0.2, "weight/c": 0.3, "density/a": 0.25}
    found = moved_to(space, Choice("dare_linear", ("a", "b")), here, there)
    assert choice_of(space, found) == Choice("dare_linear", ("a", "b"))
    assert (found["weight/a"], found["weight/b"]) == (0.1, 0.2)
    assert found["density/a"] == there["density/a"]  # task arithmetic does not read its density


def test_gradients_are_those_of_the_chosen_method(make_space):
    space = make_space(method=["ties", "ungradientd"], parameters=BOTH)
    assert differentiable(space, Choice("ties", ("a", "b"))) == ("weight/a", "weight/b")
    assert differentiable(space, Choice("ungradientd", ("a", "b"))) == ()
