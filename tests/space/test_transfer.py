import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evomerge.space import transfer

WEIGHT = {"low": -0.5, "high": 1.5}
SHARE = {"low": 0.0, "high": 1.0, "sum": 1.0}
DENSITY = {"low": 0.1, "high": 1.0, "per": ["expert"]}
TASK = {"method": "task_arithmetic", "parameters": {"weight": WEIGHT}}

KINDS = [
    {**TASK, "layers": 2, "components": ["mlp"]},
    {**TASK, "layers": 2, "parameters": {"weight": SHARE}},
    {**TASK, "subsets": True},
    {"method": "dare_linear", "parameters": {"weight": 0.5, "density": DENSITY}},
    {
        "method": ["ties", "dare_linear"],
        "layers": 3,
        "parameters": {
            "weight": {**WEIGHT, "per": ["layer"], "low": 0.01, "log": True},
            "density": DENSITY,
        },
    },
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_into_the_same_space_the_model_stays_the_same(make_space, draw, kind, seed):
    space = make_space(**kind)
    point = draw(space, seed)
    found = transfer(space, make_space(**kind), point)
    assert list(found) == list(space.distributions)
    assert space.candidate(found) == space.candidate(point)


def test_an_expert_that_joins_starts_at_0_and_one_that_leaves_is_dropped(make_space, numbers):
    old = make_space(**TASK, layers=2)
    new = make_space(**TASK, layers=2, experts=("b", "c"))
    point = {"weight/a/0-2": 0.1, "weight/b/0-2": 0.2, "weight/a/2-4": 0.3, "weight/b/2-4": 0.4}
    found = numbers(new.candidate(transfer(old, new, point)))
    assert {key[:2]: value for key, value in found.items()} == {
        (0, "/b"): 0.2, (0, "/c"): 0.0, (1, "/b"): 0.4, (1, "/c"): 0.0,
    }  # fmt: skip


def test_a_newcomer_changes_no_model_of_any_kind(make_space, draw, numbers):
    for kind in KINDS[:3]:
        old, new = make_space(**kind), make_space(**kind, experts=("a", "b", "c"))
        point = draw(old, 1)
        before, after = (
            numbers(old.candidate(point)),
            numbers(new.candidate(transfer(old, new, point))),
        )
        for key, value in after.items():
            assert value == pytest.approx(0.0 if key[1] == "/c" else before[key]), (kind, key)


def test_a_newcomer_takes_part_and_keeps_all_of_its_task_vector(make_space, draw):
    kind = {"method": "ties", "subsets": True, "parameters": {"weight": WEIGHT, "density": DENSITY}}
    old, new = make_space(**kind), make_space(**kind, experts=("a", "b", "c"))
    found = transfer(old, new, draw(old))
    assert (found["use/c"], found["weight/c"], found["density/c"]) == (1.0, 0.0, 1.0)


def test_a_newcomer_whose_range_excludes_0_starts_at_its_end(make_space, draw):
    old = make_space(**TASK)
    weight = {**WEIGHT, "experts": {"c": {"low": 0.2, "high": 1.0}}}
    new = make_space(**{**TASK, "parameters": {"weight": weight}}, experts=("a", "b", "c"))
    assert transfer(old, new, draw(old))["weight/c"] == 0.2


def test_layers_are_matched_by_what_they_share(make_space):
    point = {f"weight/{e}/{g}": v for e in "ab" for g, v in (("0-1", 0.0), ("1-4", 0.9))}
    old = make_space(**TASK, layers=((0, 1), (1, 4)))
    halves = transfer(old, make_space(**TASK, layers=2), point)
    assert halves["weight/a/0-2"] == pytest.approx(0.45)
    assert halves["weight/a/2-4"] == pytest.approx(0.9)
    assert transfer(old, make_space(**TASK), point)["weight/b"] == pytest.approx(0.9 * 3 / 4)
    each = transfer(
        make_space(**TASK), make_space(**TASK, layers="each"), {"weight/a": 0.3, "weight/b": 1.0}
    )
    assert {each[f"weight/a/{i}-{i + 1}"] for i in range(4)} == {0.3}


def test_components_are_matched_by_what_they_belonged_to(make_space):
    old = make_space(**TASK, components=["mlp", "attn"])
    point = {
        f"weight/{e}/{c}": v for e in "ab" for c, v in (("mlp", 0.1), ("attn", 0.2), ("rest", 0.6))
    }
    new = make_space(**TASK, components=["mlp.up", "norm", "attn"])
    found = transfer(old, new, point)
    parts = ("mlp.up", "norm", "attn", "rest")
    assert [found[f"weight/a/{part}"] for part in parts] == pytest.approx([0.1, 0.6, 0.2, 0.6])
    assert transfer(old, make_space(**TASK), point)["weight/a"] == pytest.approx(0.3)
    assert (
        transfer(make_space(**TASK), new, {"weight/a": 0.7, "weight/b": 0.2})["weight/a/norm"]
        == 0.7
    )


def test_new_parameters_change_nothing(make_space):
    old = make_space(**TASK)
    ranges = {"lambda": {"low": 0.5, "high": 2.0}, "weight": WEIGHT}
    new = make_space(method="task_arithmetic", parameters=ranges)
    point = {"weight/a": 0.2, "weight/b": 0.4}
    assert transfer(old, new, point) == {**point, "lambda": 1.0}
    narrow = make_space(
        method="task_arithmetic", parameters={**ranges, "lambda": {"low": 0.2, "high": 0.6}}
    )
    assert transfer(old, narrow, point)["lambda"] == 0.6
    fixed = make_space(method="task_arithmetic", parameters={"weight": WEIGHT, "lambda": 0.7})
    assert transfer(fixed, new, point)["lambda"] == 0.7


def test_a_parameter_without_default_starts_in_the_middle(make_space):
    old = make_space(method=["slerp", "linear"], parameters={"weight": WEIGHT, "t": 0.3})
    new = make_space(
        method=["slerp", "linear"], parameters={"weight": 1.0, "t": {"low": 0, "high": 1}}
    )
    point = {"method/slerp": 1.0, "method/linear": 0.0, "weight/a": 0.1, "weight/b": 0.2}
    assert transfer(old, new, point)["t"] == 0.3
    linear = make_space(method="linear", parameters={"weight": WEIGHT})
    assert transfer(linear, new, {"weight/a": 0.1, "weight/b": 0.2})["t"] == 0.5


def test_sums_and_subsets_are_resolved_where_the_new_space_has_none(make_space, numbers):
    old = make_space(
        method="task_arithmetic",
        subsets=True,
        parameters={"weight": SHARE},
        experts=("a", "b", "c"),
    )
    point = {
        "weight/a": 0.2,
        "weight/b": 0.6,
        "weight/c": 0.9,
        "use/a": 1.0,
        "use/b": 1.0,
        "use/c": 0.0,
    }
    free = make_space(**TASK, experts=("a", "b", "c"))
    assert transfer(old, free, point) == pytest.approx(
        {"weight/a": 0.25, "weight/b": 0.75, "weight/c": 0.0}
    )
    shares = make_space(
        method="task_arithmetic", parameters={"weight": SHARE}, experts=("a", "b", "c")
    )
    found = numbers(shares.candidate(transfer(old, shares, point)))
    assert found[0, "/b", "weight", None] == pytest.approx(0.75)


def test_free_weights_keep_their_proportions_on_the_simplex(make_space, numbers):
    new = make_space(method="task_arithmetic", parameters={"weight": SHARE})
    found = transfer(make_space(**TASK), new, {"weight/a": 0.5, "weight/b": 1.5})
    assert numbers(new.candidate(found))[0, "/b", "weight", None] == pytest.approx(0.75)


def test_the_chosen_method_goes_along_or_there_is_no_point(make_space):
    both = make_space(method=["ties", "linear"], parameters={"weight": WEIGHT})
    point = {"method/ties": 0.3, "method/linear": 0.6, "weight/a": 0.1, "weight/b": 0.2}
    more = make_space(method=["task_arithmetic", "linear", "ties"], parameters={"weight": WEIGHT})
    assert more.method(transfer(both, more, point)) == "linear"
    assert transfer(both, make_space(method="linear", parameters={"weight": WEIGHT}), point) == {
        "weight/a": 0.1,
        "weight/b": 0.2,
    }
    assert transfer(both, make_space(method="ties", parameters={"weight": WEIGHT}), point) is None


def test_another_height_is_another_family(make_space, draw):
    old = make_space(**TASK)
    assert transfer(old, make_space(**TASK, num_layers=8), draw(old)) is None


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(KINDS), st.sampled_from(KINDS), st.integers(0, 99))
def test_whatever_moves_arrives_inside_the_new_ranges(make_space, draw, one, other, seed):
    old, new = make_space(**one), make_space(**other, experts=("b", "c", "d"))
    point = draw(old, seed)
    found = transfer(old, new, point)
    if found is None:
        assert old.method(point) not in new.settings.method
        return
    assert list(found) == list(new.distributions)
    for name, distribution in new.distributions.items():
        assert distribution.low <= found[name] <= distribution.high
