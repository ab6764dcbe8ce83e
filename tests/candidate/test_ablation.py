from __future__ import annotations

import numpy as np
import pytest

from evomerge.candidate import Coefficients, Merge, Mixture, PathStep, Stack
from evomerge.candidate.ablation import places, with_number, without_group, without_weight
from evomerge.candidate.ensemble import Ensemble, Mix, Router, RouterFit
from evomerge.candidate.gates import Gates

OWN = {"weight": (((0.1, 0.2), (0.3, 0.4)),), "density": (((0.5, 0.7),),)}
MERGE = Merge("ties", ("/a", "/b"), "/base", groups=((0, 1), (1, 3)), components=("mlp",), own=OWN)
PARENTS = {name: Merge("passthrough", (f"/{name}",)) for name in ("a", "b", "base")}


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, dtype=np.float32)


def test_an_expert_has_weight_0_everywhere_and_the_others_are_as_they_were() -> None:
    tables = Coefficients({"x": ones(2, 3), "y": ones(2, 1)})
    merge = Merge("ties", ("/a", "/b"), "/base", own=OWN, coefficients=tables)
    found = without_weight(merge, "/a")
    assert found.own == {"weight": (((0.0, 0.2), (0.0, 0.4)),), "density": OWN["density"]}
    assert found.coefficients is not None
    assert found.coefficients.tables["x"].tolist() == [[0, 0, 0], [1, 1, 1]]
    assert found.coefficients.tables["y"].tolist() == [[0], [1]]
    assert tables.tables["x"].all(), "the winner's own"


def test_a_weight_that_all_share_becomes_one_for_each() -> None:
    merge = Merge("linear", ("/a", "/b", "/c"), fixed={"weight": 1.0, "normalize": True})
    found = without_weight(merge, "/b")
    assert found.own == {"weight": (((1.0, 0.0, 1.0),),)}
    assert found.fixed == {"normalize": True}


def test_without_an_expert_of_weight_0_it_is_the_very_merge() -> None:
    own = {"weight": (((0.0, 0.2), (-0.0, 0.4)),)}
    rows = np.array([[0, 0], [1, 2]], dtype=np.float32)
    merge = Merge("ties", ("/a", "/b"), "/base", own=own, coefficients=Coefficients({"x": rows}))
    assert without_weight(merge, "/a") is merge
    assert without_weight(merge, "/b") != merge


def test_what_is_added_to_a_weight_of_0_counts() -> None:
    own = {"weight": (((0.0, 0.2),),)}
    merge = Merge("ties", ("/a", "/b"), "/base", own=own)
    merge = Merge(**{**vars(merge), "coefficients": Coefficients({"x": ones(2, 2)})})
    found = without_weight(merge, "/a")
    assert found != merge
    assert found.own == own
    assert found.coefficients is not None
    assert found.coefficients.tables["x"].tolist() == [[0, 0], [1, 1]]


def test_a_group_is_left_out_of_a_table_that_has_no_axis_of_groups() -> None:
    tables = Coefficients({"mlp.0": ones(2, 2), "mlp.1": ones(2, 2)})
    merge = Merge(**{**vars(MERGE), "coefficients": tables})
    assert list(places(merge).items()) == [
        ((0, 0), ("0-1", "mlp")),
        ((0, 1), ("0-1", "rest")),
        ((1, 0), ("1-3", "mlp")),
        ((1, 1), ("1-3", "rest")),
    ]
    found = without_group(merge, (1, 0), ["mlp.1", "mlp.2"])
    assert found.own["weight"] == (((0.1, 0.2), (0.3, 0.4)), ((0.0, 0.0), (0.3, 0.4)))
    assert found.own["density"] == OWN["density"]
    assert found.coefficients is not None
    assert found.coefficients.tables["mlp.0"].all()
    assert not found.coefficients.tables["mlp.1"].any()


def test_a_group_without_weights_is_the_very_merge() -> None:
    own = {"weight": (((0.0, 0.0),), ((0.3, 0.4),))}
    merge = Merge("ties", ("/a", "/b"), "/base", groups=((0, 1), (1, 3)), own=own)
    assert without_group(merge, (0, 0), ["x"]) is merge
    assert without_group(merge, (1, 0), ["x"]).own == {"weight": (((0.0, 0.0),), ((0.0, 0.0),))}


def test_a_number_of_all_experts_is_replaced_everywhere_or_in_one_place() -> None:
    merge = Merge("slerp", ("/a",), "/base", groups=((0, 1), (1, 2)), fixed={"t": 0.4})
    assert with_number(merge, "t", 0.0).shared == {"t": ((0.0,),)}
    assert with_number(merge, "t", 0.0).fixed == {}
    assert with_number(merge, "t", 0.0, (1, 0)).shared == {"t": ((0.4,), (0.0,))}
    assert with_number(merge, "t", 0.4, (1, 0)) is merge


def test_a_member_leaves_a_router_with_what_is_known_of_it() -> None:
    by_member = {"coefficients": (3, 5), "errors": (3, 1), "lambdas": (3, 1)}
    rows = {
        n: np.arange(3, dtype=np.float32)[:, None] + np.zeros(s, np.float32)
        for n, s in by_member.items()
    }
    fit = RouterFit({"mean": ones(1, 4), "scale": ones(1, 4), **rows})
    whole = Ensemble("/base", PARENTS, Router(2, fallback="b"), fit=fit)
    left = whole.without("b")
    assert left is not None
    assert left.fit is not None
    assert left.router == Router(2)
    assert list(left.members) == ["a", "base"]
    assert left.fit.tables["errors"].ravel().tolist() == [0, 2]
    kept = whole.without("a")
    assert kept is not None
    assert kept.router == whole.router
    assert Ensemble("/base", {"a": PARENTS["a"]}, Router(2)).without("a") is None


def test_a_member_leaves_a_mix_and_the_next_one_runs() -> None:
    mix = Mix({"a": 0.5, "b": 0.3, "base": 0.2}, top_k=2)
    left = Ensemble("/base", PARENTS, mix=mix).without("a")
    assert left is not None
    assert left.mix is not None
    assert left.mix.running == {"b": pytest.approx(0.6), "base": pytest.approx(0.4)}
    alone = Ensemble("/base", PARENTS, mix=Mix({"a": 1.0, "b": 0.0}))
    assert alone.without("a") is None


def test_an_expert_leaves_a_mixture_with_its_row_of_the_gates() -> None:
    gates = Gates.of({0: np.array([[1, 1], [2, 2]], np.float32)}, accuracy=ones(1, 1))
    experts = {name: PARENTS[name] for name in ("a", "b")}
    whole = Mixture("/base", PARENTS["base"], experts, top_k=2, fit=gates)
    left = whole.without("a")
    assert left is not None
    assert left.fit is not None
    assert (list(left.experts), left.top_k) == (["b"], 1)
    assert left.fit.tables["gate.0"].tolist() == [[2, 2]]
    assert left.fit.accuracy == ()
    assert left.without("b") is None


def test_the_base_stands_in_for_a_member_of_a_stack() -> None:
    members = {name: PARENTS[name] for name in ("a", "b")}
    path = (PathStep("a", 0), PathStep("b", 1, 0.5), PathStep("a", 1))
    stack = Stack("/base", members, path)
    left = stack.with_base_for("a")
    assert left.path == (PathStep("base", 0), PathStep("b", 1, 0.5), PathStep("base", 1))
    assert left.members == {"b": PARENTS["b"], "base": PARENTS["base"]}
    assert left.with_base_for("a") is left
