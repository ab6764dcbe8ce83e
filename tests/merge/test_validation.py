"""What is wrong with a recipe, with the field where it is."""

from __future__ import annotations

import pytest

from evomerge.candidate import Conditional, Recipe, Slice, Source, Vocabulary
from evomerge.errors import RecipeError
from evomerge.merge.methods import METHODS
from evomerge.merge.validation import check_recipe

ONE, TWO = Source("a"), Source("b")


@pytest.mark.parametrize("name", sorted(METHODS))
def test_right_recipes_pass(name):
    method = METHODS[name]
    parameters = {key: 0.5 for key, spec in method.parameters.items() if spec.required}
    models = (ONE,) if method.max_models == 1 else (ONE, TWO)
    base = "base" if method.needs_base else None
    check_recipe(Recipe(method=name, models=models, base_model=base, parameters=parameters))


def test_right_slices_pass():
    piece = Slice((Source("a", (0, 2)), Source("base", (2, 4))), parameters={"weight": 1.0})
    check_recipe(Recipe(method="ties", slices=(piece,), base_model="base"))
    own = Slice((Source("a", (0, 2)), Source("b", (2, 4))), base_model="b")
    check_recipe(Recipe(method="ties", slices=(own,)))


def ties(*models, **options):
    return Recipe(**{"method": "ties", "models": models, "base_model": "base"} | options)


@pytest.mark.parametrize(
    ("recipe", "field", "message"),
    [
        (ties(ONE, method="tie"), "merge_method", 'did you mean "ties"'),
        (ties(), "models", "either models or slices"),
        (ties(ONE, base_model=None), "base_model", "ties needs a base_model"),
        (
            ties(ONE, vocabulary=Vocabulary("union", {"<s>": {"source": 3}})),
            "tokenizer.tokens.<s>.source",
            "found 3, expected a model",
        ),
        (ties(ONE, TWO, ONE), "models.2.model", "a is listed twice"),
        (ties(Source("base")), "models", r"at least 1 model\(s\) besides the base, found 0"),
        (
            ties(ONE, TWO, method="slerp"),
            "models",
            r"takes exactly 1 model\(s\) besides the base, found 2",
        ),
        (
            ties(ONE, TWO, method="passthrough", base_model=None),
            "models",
            r"takes exactly 1 model\(s\), found 2",
        ),
        (ties(ONE, method="passthrough"), "models", r"exactly 1 model\(s\), found 2"),
        (ties(ONE, parameters={"wieght": 1}), "parameters.wieght", 'did you mean "weight"'),
        (
            ties(Source("a", parameters={"density": 1.5})),
            "models.0.parameters.density",
            r"found 1\.5, expected a number from 0 to 1",
        ),
        (
            ties(ONE, parameters={"density": (Conditional((0.5, -1), "mlp"),)}),
            "parameters.density.0.value.1",
            "found -1",
        ),
        (ties(Source("a", (0, 2))), "models.0.layer_range", "belongs into slices"),
        (
            ties(slices=(Slice((Source("a", (0, 1)),)),)),
            "slices.0.sources",
            "the base model base must be one of the slice's sources",
        ),
        (
            ties(slices=(Slice((Source("a", (0, 1)), Source("base", (0, 2)))),)),
            "slices.0.sources",
            r"equally long, found \[1, 2\]",
        ),
        (
            ties(slices=(Slice((Source("a", (0, 1)), Source("base", (0, 1))), None, {"t": 1}),)),
            "slices.0.parameters.t",
            'ties has no parameter "t"',
        ),
    ],
)
def test_wrong_recipes(recipe, field, message):
    with pytest.raises(RecipeError, match=message) as caught:
        check_recipe(recipe)
    assert caught.value.field == field


def test_any_source_of_one_vocabulary_passes():
    check_recipe(ties(ONE, parameters={"weight": 1}, vocabulary=Vocabulary("union")))


def test_what_mergekit_ignores_is_accepted():
    check_recipe(
        ties(ONE, method="task_arithmetic", parameters={"density": 0.5, "int8_mask": True})
    )
