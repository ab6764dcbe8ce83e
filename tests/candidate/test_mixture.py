from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from evomerge.candidate import Coefficients, Merge, Mixture, Size
from evomerge.candidate.gates import Gates
from evomerge.kinds import read

SHARED = Merge(
    "task_arithmetic",
    ("/one", "/two"),
    "/base",
    own={"weight": (((0.1, 0.2),),)},
    dtype="float32",
    coefficients=Coefficients({"norm": np.full((2, 3), 0.5, np.float32)}),
)


def gates(accuracy: bool = True) -> Gates:
    rng = np.random.default_rng(0)
    found = {layer: rng.normal(size=(2, 3)).astype(np.float32) for layer in range(2)}
    share = np.array([[0.75, 0.5]], np.float32)
    return Gates.of(found, accuracy=share if accuracy else None)


def alone(model: str) -> Merge:
    return Merge("passthrough", (model,), dtype="float32")


def mixture(**changes: object) -> Mixture:
    found = Mixture(
        "/base", SHARED, {"one": alone("/one"), "best": SHARED}, 2, 0.3, share=0.25, fit=gates()
    )
    return replace(found, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("one", [mixture(), mixture(fit=None, share=0.0)])
def test_text_and_arrays_give_it_back(one: Mixture) -> None:
    again = read(one.text(), dict(one.arrays()).__getitem__)
    assert again == one
    assert again.text() == one.text()
    assert len(one.arrays()) == 1 + (one.fit is not None)


def test_gates_are_known_by_layer() -> None:
    found = Gates.read(gates().content)
    assert found == gates()
    assert found.layer(1) is not None
    assert found.layer(2) is None
    assert found.shared(0) is None
    assert found.accuracy == (0.75, 0.5)
    assert gates(accuracy=False).accuracy == ()


def test_models_are_those_that_something_comes_from() -> None:
    assert mixture().model_names() == ("/base", "/one", "/two")
    assert mixture(shared=alone("/two"), experts={"one": alone("/one")}).model_names() == (
        "/two",
        "/one",
    )
    assert mixture(experts={"b": alone("/base")}, shared=alone("/two")).model_names()[0] == "/base"


def test_its_gates_learn_from_the_experts_scores() -> None:
    assert dict(mixture().scored_members) == {"one": alone("/one"), "best": SHARED}


def test_the_recipe_shares_the_blocks_out_and_names_equal_merges_once() -> None:
    recipe, merges = mixture().recipe()
    assert merges == {"shared": SHARED.recipe()}
    assert recipe.base_model == "shared"
    assert [(one.source_model, one.residual_scale) for one in recipe.experts] == [
        ("/one", 0.75),
        ("shared", 0.75),
    ]
    assert recipe.shared_expert is not None
    # A gate of 0 lets half of it through.
    assert (recipe.shared_expert.source_model, recipe.shared_expert.residual_scale) == (
        "shared",
        0.5,
    )
    assert recipe.architecture == "qwen"
    plain = mixture(share=0.0).recipe()[0]
    assert plain.shared_expert is plain.architecture is None


def test_unlike_merges_of_one_name_are_told_apart() -> None:
    other = replace(SHARED, coefficients=None)
    recipe, merges = mixture(experts={"shared": other}).recipe()
    assert merges == {"shared": SHARED.recipe(), "shared_": other.recipe()}
    assert recipe.experts[0].source_model == "shared_"


def test_it_counts_the_blocks_that_stand_in_memory_and_those_that_a_token_passes() -> None:
    base = Size(layers=(10, 10), rest=20, feed_forward=(6, 6))  # 40 weights, 12 of them in blocks
    three = {name: alone(name) for name in ("/a", "/b", "/c")}
    plain = mixture(experts=three, share=0.0)
    assert plain.size(base) == (40 + 2 * 12) / 40
    assert plain.active(base) == (40 + 12) / 40
    assert mixture(experts=three).size(base) == (40 + 3 * 12) / 40
    assert mixture(experts=three, top_k=1).active(base) == (40 + 12) / 40
    tied = replace(base, tied_head=15)
    assert plain.size(tied) == (40 + 15 + 2 * 12) / 40
    assert plain.active(tied) == (40 + 15 + 12) / 40


def test_tables_and_cards_say_how_well_it_routes() -> None:
    rows = {(row["parameter"], row["layers"]): row["value"] for row in mixture().numbers()}
    assert rows["top_k", "all"] == 2
    assert rows["routing accuracy", "1-2"] == 0.5
    assert ("weight", "all") in rows
    assert mixture().label() == "mixture 2 of 2"
    assert "0.75, 0.50" in mixture().remark()
    assert mixture(fit=None).remark() == mixture(fit=gates(accuracy=False)).remark() == ""
