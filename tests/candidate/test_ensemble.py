"""Ensembles as values: text, arrays, sizes, and what they refuse."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evomerge.candidate import Coefficients, Merge, Size, Vocabulary
from evomerge.candidate.ensemble import Ensemble, Mix, Router, RouterFit
from evomerge.errors import RecipeError

LAYERS = Size((10, 10, 10, 10), 60)


def parent(model: str) -> Merge:
    return Merge("passthrough", (model,), dtype="float32")


def merged(**more: Any) -> Merge:
    return Merge("task_arithmetic", ("/one", "/two"), "/base", fixed={"weight": 0.4}, **more)


def fit(members: int = 3) -> RouterFit:
    rng = np.random.default_rng(0)
    widths = {"mean": (1, 5), "scale": (1, 5), "coefficients": (members, 6)}
    shapes = widths | dict.fromkeys(("errors", "lambdas"), (members, 1))
    return RouterFit({k: rng.random(shape, dtype=np.float32) for k, shape in shapes.items()})


def routed(**more: Any) -> Ensemble:
    members = {"base": parent("/base"), "one": parent("/one"), "best": merged()}
    return replace(Ensemble("/base", members, Router(2, "best", 0.5)), **more)


def mixed(**more: Any) -> Ensemble:
    mix = Mix({"one": 0.2, "best": 0.6}, **more)
    return replace(routed(), router=None, mix=mix)


def read(made: Ensemble) -> Ensemble:

    data = json.loads(made.text())
    assert data.pop("kind") == "ensemble"
    return Ensemble.read(data, made.arrays().__getitem__)


def test_the_text_and_the_arrays_give_it_back() -> None:
    coefficients = Coefficients({"t": np.ones((2, 3), np.float32)})
    fine = {**routed().members, "best": merged(coefficients=coefficients)}
    for made in (routed(), routed(fit=fit()), mixed(over="logits"), routed(members=fine)):
        assert "\n" not in made.text()
        found = read(made)
        assert found == made
        assert found.text() == made.text()
    assert routed(fit=fit(), members=fine).arrays().keys() == {fit().digest, coefficients.digest}
    assert routed().text() != routed(fit=fit()).text()


def test_it_travels_to_workers_and_back() -> None:
    for made in (routed(fit=fit()), mixed()):
        assert pickle.loads(pickle.dumps(made)) == made


def test_only_members_of_a_router_are_scored_apart() -> None:
    assert routed().scored_members.keys() == {"base", "one", "best"}
    assert mixed().scored_members == {}


def test_the_running_members_are_those_with_the_largest_weights() -> None:
    weights = {"a": 0.1, "b": 0.5, "c": 0.4, "d": 0.0}
    assert Mix(weights, top_k=4).running == {"a": 0.1, "b": 0.5, "c": 0.4}
    assert Mix(weights, top_k=2).running == pytest.approx({"b": 5 / 9, "c": 4 / 9})
    assert list(Mix(weights, top_k=2).running) == ["b", "c"]
    assert Mix(weights, top_k=1).running == {"b": 1.0}
    assert Mix({"a": 3.0, "b": 3.0}, top_k=1).running == {"a": 1.0}


def test_sizes_are_those_of_the_members() -> None:
    assert routed().size(LAYERS) == pytest.approx(3)  # base, one, best
    without = {"one": parent("/one"), "best": merged()}
    assert routed(members=without).size(LAYERS) == pytest.approx(3)  # the base reads the prompts
    assert routed().active(LAYERS) == pytest.approx(1.8)  # rest and two layers of the base
    assert routed(router=Router(0)).active(LAYERS) == pytest.approx(1.6)
    assert mixed(top_k=2).active(LAYERS) == pytest.approx(2)
    assert mixed(top_k=1).active(LAYERS) == pytest.approx(1)
    adapters = replace(LAYERS, adapters={"/one": 5})
    assert routed().size(adapters) == pytest.approx(2.05)


def test_features_are_the_bases_in_the_vocabulary_of_the_members() -> None:
    assert routed().features_of == parent("/base")
    vocabulary = Vocabulary("union")
    models = ("/base", "/one", "/two")
    own = {"weight": (((0.0, 1.0, 0.0),),)}
    one = Merge("linear", models, "/base", False, own=own, vocabulary=vocabulary, dtype="float32")
    found = routed(members={"one": one}, router=Router(1)).features_of
    assert found == replace(one, own={"weight": (((1.0, 0.0, 0.0),),)})


def test_numbers_stand_in_one_table() -> None:
    rows = routed().numbers()
    assert {row["parameter"]: row["value"] for row in rows} == {
        "layer": 2,
        "margin": 0.5,
        "weight": 0.4,
    }
    rows = mixed(top_k=2, temperature=0.5).numbers()
    shares = {row["model"]: row["value"] for row in rows if row["parameter"] == "weight"}
    assert shares == pytest.approx({"one": 0.25, "best": 0.75, "all": 0.4})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"members": {}}, "members: an ensemble without members"),
        ({"router": None}, "router: an ensemble has either a router or a mix"),
        ({"mix": Mix({"one": 1.0})}, "router: an ensemble has either a router or a mix"),
        ({"router": Router(1, "bets")}, 'router.fallback: no member "bets"; did you mean "best"'),
        ({"router": Router(1, None, -0.1)}, "router.margin: found -0.1, expected 0 or more"),
        ({"fit": fit(2)}, "fit: a router fitted for 2 members, the ensemble has 3"),
    ],
)
def test_a_routed_ensemble_refuses(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as error:
        routed(**change)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        (Mix({"ones": 1.0}), 'mix.weights.ones: no member "ones"; did you mean "one"'),
        (Mix({"one": 0.0}), "mix.weights: expected weights of at least 0, one above 0"),
        (Mix({}), "mix.weights: expected weights"),
        (Mix({"one": 1.0, "best": -1.0}), "mix.weights: expected weights"),
        (Mix({"one": 1.0}, top_k=4), "mix.top_k: found 4, expected 1 to 3, the number of members"),
        (Mix({"one": 1.0}, top_k=0), "mix.top_k: found 0, expected 1 to 3"),
        (Mix({"one": 1.0}, temperature=0.0), "mix.temperature: found 0.0, expected a number above"),
        (Mix({"one": 1.0}, "odds"), 'mix.over: found "odds", expected probabilities or logits'),  # type: ignore[arg-type]
    ],
)
def test_a_mixed_ensemble_refuses(mix: Mix, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        routed(router=None, mix=mix)
    assert message in str(error.value)
