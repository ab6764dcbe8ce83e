from dataclasses import replace

import pytest

from evomerge.space import Choices, Region

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
    assert [(one.arm, one.experts) for one in Choices(space).first()] == [
        (method, ("a", "b", "c")) for method in space.settings.method
    ]


def test_a_choice_sees_only_what_its_models_depend_on(space):
    everyone = ("a", "b", "c")
    assert Choices(space).free(Region("task_arithmetic", everyone)) == tuple(
        f"weight/{e}" for e in "abc"
    )
    assert Choices(space).free(Region("dare_linear", ("a", "c"))) == (
        "weight/a", "weight/c", "density/a", "density/c",
    )  # fmt: skip
    assert Choices(space).free(Region("slerp", everyone)) == ("t",)


def test_models_do_not_depend_on_the_other_dimensions(space, draw):
    for choice in Choices(space).first()[:2]:
        one = Choices(space).default_point(choice)
        assert Choices(space).at(one) == choice
        other = draw(space, 3)
        kept = {
            name: other[name] for name in other if "/" not in name or name[:3] in ("wei", "den")
        }
        mixed = {**one, **kept, **{name: one[name] for name in Choices(space).free(choice)}}
        assert space.candidate(mixed) == replace(
            space.candidate(one), seed=space.candidate(mixed).seed
        )


def test_defaults_are_the_methods_own_or_the_nearest_in_their_range(space):
    point = Choices(space).default_point(Region("dare_linear", ("a", "b", "c")))
    assert {point[f"density/{name}"] for name in "abc"} == {0.9}  # its default is 1
    assert {point[f"weight/{name}"] for name in "abc"} == {0.6}  # it has none


def test_a_method_without_weights_leaves_nobody_out(space):
    point = {**Choices(space).default_point(Region("slerp", ("a", "b", "c"))), "use/a": 0.0}
    assert Choices(space).at(point).experts == ("a", "b", "c")
    assert Choices(space).neighbours(Region("slerp", ("a", "b", "c"))) == ()


def test_neighbours_have_one_expert_less_or_more_and_are_never_empty(space, make_space):
    found = [
        one.experts for one in Choices(space).neighbours(Region("task_arithmetic", ("a", "c")))
    ]
    assert found == [("c",), ("a",), ("a", "b", "c")]
    assert all(one.experts for one in Choices(space).neighbours(Region("task_arithmetic", ("b",))))
    fixed = make_space(method="ties", parameters=BOTH)
    assert Choices(fixed).neighbours(Choices(fixed).first()[0]) == ()


def test_moved_to_another_choice_common_numbers_stay(space):
    there = Choices(space).default_point(Region("dare_linear", ("a", "b")))
    here = {**Choices(space).default_point(Region("task_arithmetic", ("a", "b", "c")))}
    here |= {"weight/a": 0.1, "weight/b": 0.2, "weight/c": 0.3, "density/a": 0.25}
    found = Choices(space).moved_to(Region("dare_linear", ("a", "b")), here, there)
    assert Choices(space).at(found) == Region("dare_linear", ("a", "b"))
    assert (found["weight/a"], found["weight/b"]) == (0.1, 0.2)
    assert found["density/a"] == there["density/a"]  # task arithmetic does not read its density


def test_gradients_are_those_of_the_chosen_method(make_space):
    space = make_space(method=["ties", "ungradientd"], parameters=BOTH)
    assert Choices(space).differentiable(Region("ties", ("a", "b"))) == ("weight/a", "weight/b")
    assert Choices(space).differentiable(Region("ungradientd", ("a", "b"))) == ()


def test_weights_of_methods_that_elect_signs_begin_at_the_usual_best(make_space):
    both = {**BOTH, "density": {"low": 0.2, "high": 1.0, "per": []}}
    space = make_space(method="dare_ties", parameters=both)
    (point,) = space.first()
    assert point == {"weight/a": 0.3, "weight/b": 0.3, "density": 1.0}
    shared = make_space(method="dare_ties", subsets=True, parameters=both)
    assert shared.first() == ()  # its arm begins there
    arms = Choices(shared)
    assert arms.default_point(arms.first()[0]) == {**point, "use/a": 1.0, "use/b": 1.0}


def test_a_method_without_weights_begins_in_the_middle(make_space):
    epsilon = {"low": 1e-6, "high": 1e-2}
    (point,) = make_space(method="ram", parameters={"epsilon": epsilon}).first()
    assert point == {"epsilon": pytest.approx((1e-6 + 1e-2) / 2)}
    (point,) = make_space(method="ram", parameters={"epsilon": {**epsilon, "log": True}}).first()
    assert point == {"epsilon": pytest.approx(1e-4)}


def test_a_search_begins_at_the_naive_merge_where_one_lies_in_the_space(make_space):
    assert make_space(method="dare_linear", parameters={"weight": WEIGHT}).first() == ()
    (point,) = make_space(method="ungradientd", parameters={"weight": WEIGHT}).first()
    assert point == {"weight/a": 0.6, "weight/b": 0.6}
