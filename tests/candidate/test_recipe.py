"""The recipe as a value."""

from __future__ import annotations

from evomerge.candidate import Recipe, Slice, Source


def test_model_names_are_in_order_and_once_each():
    recipe = Recipe(
        method="ties",
        base_model="base",
        slices=(
            Slice((Source("a"), Source("base"))),
            Slice((Source("b"), Source("a")), base_model="c"),
        ),
    )
    assert recipe.model_names() == ("base", "a", "c", "b")


def test_renamed_replaces_models_and_bases_everywhere():
    made = Recipe(
        method="ties",
        base_model="b",
        slices=(Slice(sources=(Source("b", (0, 1)), Source("b+a", (0, 1))), base_model="b"),),
        models=(Source("b+a", parameters={"weight": 1.0}),),
    )
    new = made.renamed({"b": "B", "b+a": "B+A"}.__getitem__)
    assert new.model_names() == ("B", "B+A")
    assert new.slices[0].base_model == "B"
    assert new.models[0].parameters == {"weight": 1.0}
