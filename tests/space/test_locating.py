import pytest

from evomerge.space.baselines import Wanted, located

WEIGHT = {"low": 0.0, "high": 1.2}
PLAIN = {"density": 1.0, "lambda": 1.0, "normalize": False}


def find(space, a, b, method="task_arithmetic"):
    return located(space, method, Wanted({"a": a, "b": b}, PLAIN))


def weights(numbers, space, point):
    found = numbers(space.candidate(point))
    return {
        model: {v for key, v in found.items() if key[1:3] == (model, "weight")}
        for model in ("/a", "/b")
    }


def test_it_is_the_same_in_all_groups(make_space, numbers):
    space = make_space(method="task_arithmetic", layers="each", parameters={"weight": WEIGHT})
    point = find(space, 0.4, 1.2)
    assert list(point) == list(space.distributions)
    assert weights(numbers, space, point) == {"/a": {0.4}, "/b": {1.2}}


def test_with_a_sum_only_what_adds_up_lies_in_the_space(make_space, numbers):
    parameters = {"weight": {"low": 0.0, "high": 1.0, "sum": 1.0}}
    space = make_space(method="task_arithmetic", layers=2, parameters=parameters)
    assert find(space, 0.5, 0.4) is None
    assert find(space, 0.0, 0.0) is None
    assert weights(numbers, space, find(space, 1.0, 0.0)) == {"/a": {1.0}, "/b": {0.0}}
    assert weights(numbers, space, find(space, 0.5, 0.5)) == {"/a": {0.5}, "/b": {0.5}}


def test_only_the_proportions_need_to_fit_the_range_of_a_sum(make_space, numbers):
    parameters = {"weight": {"low": 0.0, "high": 0.6, "sum": 1.0}}
    space = make_space(method="task_arithmetic", parameters=parameters)
    point = find(space, 0.75, 0.25)
    assert point == pytest.approx({"weight/a": 0.6, "weight/b": 0.2})
    found = weights(numbers, space, point)
    assert found["/a"].pop() == pytest.approx(0.75)


def test_an_expert_of_weight_0_takes_no_part(make_space, numbers):
    narrow = {"low": 0.3, "high": 1.2}
    space = make_space(method="task_arithmetic", subsets=True, parameters={"weight": narrow})
    point = find(space, 0.0, 1.0)  # 0 is out of the range
    assert (point["use/a"], point["use/b"]) == (0.0, 1.0)
    assert weights(numbers, space, point) == {"/a": {0.0}, "/b": {1.0}}
    assert find(space, 0.0, 0.0) is None  # one takes part
    wide = make_space(method="task_arithmetic", subsets=True, parameters={"weight": WEIGHT})
    assert weights(numbers, wide, find(wide, 0.0, 0.0)) == {"/a": {0.0}, "/b": {0.0}}


def test_with_a_fixed_or_shared_weight_subsets_hold_the_experts(make_space, numbers):
    fixed = make_space(method="task_arithmetic", subsets=True, parameters={"weight": 1.0})
    assert find(fixed, 1.0, 0.0) == {"use/a": 1.0, "use/b": 0.0}
    assert find(fixed, 0.5, 0.5) is None
    shared = make_space(
        method="task_arithmetic", subsets=True, parameters={"weight": {**WEIGHT, "per": []}}
    )
    point = find(shared, 0.0, 0.9)
    assert weights(numbers, shared, point) == {"/a": {0.0}, "/b": {0.9}}


def test_what_one_expert_may_not_have_is_not_there(make_space):
    weight = {**WEIGHT, "experts": {"a": {"low": 0.5, "high": 2.0}, "b": 0.0}}
    space = make_space(method="task_arithmetic", parameters={"weight": weight})
    assert find(space, 1.0, 0.0) == {"weight/a": 1.0}
    assert find(space, 0.4, 0.0) is None
    assert find(space, 1.0, 1.0) is None


def test_of_several_methods_it_chooses_the_wanted_one(make_space):
    density = {"low": 0.1, "high": 1.0, "per": []}
    space = make_space(
        method=["ties", "dare_linear"],
        parameters={"weight": {**WEIGHT, "per": []}, "density": density},
    )
    point = find(space, 0.5, 0.5, method="dare_linear")
    assert space.candidate(point).seed == 7
    assert point["density"] == 1.0
    assert find(space, 0.5, 0.6, method="dare_linear") is None  # one weight for all
    assert find(space, 0.5, 0.5) is None  # task arithmetic is not searched


def test_what_the_method_does_not_read_is_in_the_middle(make_space):
    parameters = {"weight": WEIGHT, "density": {"low": 0.2, "high": 1.0}}
    space = make_space(method=["task_arithmetic", "ties"], layers=2, parameters=parameters)
    point = find(space, 0.5, 0.5)
    assert point["density/a/0-2"] == pytest.approx(0.6)
