"""Recipes to YAML and back, and the errors of a recipe file."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from evomerge.candidate import (
    Conditional,
    Recipe,
    Slice,
    Source,
    Vocabulary,
    dumps,
    load,
    loads,
    located,
    save,
)
from evomerge.errors import ModelError, RecipeError

numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.integers(-100, 100), st.booleans()
)
words = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
gradients = st.lists(numbers, max_size=5).map(tuple)
conditionals = st.builds(Conditional, value=st.one_of(numbers, gradients), filter=st.none() | words)
settings = st.one_of(numbers, gradients, st.lists(conditionals, min_size=1, max_size=3).map(tuple))
parameters = st.dictionaries(words, settings, max_size=3)
names = st.from_regex(r"[A-Za-z0-9./_-]{1,20}", fullmatch=True)
ranges = st.tuples(st.integers(0, 9), st.integers(1, 9)).map(lambda r: (r[0], r[0] + r[1]))


def sources(layer_range):
    source = st.builds(Source, model=names, layer_range=layer_range, parameters=parameters)
    return st.lists(source, min_size=1, max_size=3).map(tuple)


slices = st.builds(
    Slice, sources=sources(ranges), base_model=st.none() | names, parameters=parameters
)
vocabularies = st.builds(
    Vocabulary,
    source=names,
    tokens=st.dictionaries(words, st.just({"source": "a", "force": True}), max_size=2),
    pad_to_multiple_of=st.none() | st.integers(1, 64),
)
rest = {
    "method": words,
    "base_model": st.none() | names,
    "parameters": parameters,
    "dtype": st.sampled_from([None, "float32", "bfloat16"]),
    "out_dtype": st.sampled_from([None, "float16"]),
    "vocabulary": st.none() | vocabularies,
    "chat_template": st.none() | st.text(st.characters(codec="ascii", categories=["L", "P"])),
    "seed": st.integers(0, 2**64),
}
recipes = st.one_of(
    st.builds(Recipe, models=sources(st.none()), **rest),
    st.builds(Recipe, slices=st.lists(slices, min_size=1, max_size=3).map(tuple), **rest),
)


@settings_of_hypothesis(max_examples=60, deadline=None)
@given(recipes)
def test_a_recipe_survives_its_file(recipe):
    again = loads(dumps(recipe))
    assert again == recipe
    assert dumps(again) == dumps(recipe)


@pytest.mark.parametrize("number", [1e-5, 0.1 + 0.2, 1e22, -2.5e-300, 3, True])
def test_mergekit_reads_the_same_numbers(number):
    """PyYAML, which mergekit uses, takes `1e-05` for text; mergekit makes a number of it again."""
    recipe = Recipe(method="ties", models=(Source("a"),), parameters={"weight": number})
    assert float(yaml.safe_load(dumps(recipe))["parameters"]["weight"]) == number


def test_save_and_load(tmp_path):
    recipe = Recipe(method="ties", models=(Source("a", parameters={"weight": 0.1 + 0.2}),), seed=5)
    save(recipe, tmp_path / "recipe.yaml")
    assert load(tmp_path / "recipe.yaml") == recipe
    assert "0.30000000000000004" in (tmp_path / "recipe.yaml").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # mergekit's own
def test_mergekit_accepts_our_seed():
    from mergekit.config import MergeConfiguration

    recipe = Recipe(method="dare_ties", models=(Source("a"),), base_model="b", seed=12)
    config = MergeConfiguration.model_validate(yaml.safe_load(dumps(recipe)))
    assert config.merge_method == "dare_ties"


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(RecipeError, match=r"nowhere\.yaml: no such file"):
        load(tmp_path / "nowhere.yaml")


def test_an_error_of_the_merge_room_gets_file_and_line(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "merge_method: ties\nmodels:\n  - model: a\n    parameters:\n      density: 2\n",
        encoding="utf-8",
    )
    error = located(RecipeError("too large", field="models.0.parameters.density"), path)
    assert str(error) == f"{path}:5: models.0.parameters.density: too large"
    assert located(error, tmp_path / "other") is error
    bare = RecipeError("no field")
    assert located(bare, path) is bare


@pytest.mark.parametrize(
    ("missing", "place"),
    [
        ("nowhere", "2: base_model"),
        ("org/model", "5: models.0.model"),
        ("org/adapter", "5: models.0.model"),
        ("org/words", "11: tokenizer.source"),
        ("org/other", "8: models.1.model"),
    ],
)
def test_an_error_of_a_model_names_where_the_recipe_has_it(tmp_path, missing, place):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "merge_method: ties\nbase_model: nowhere\nparameters: {density: 0.5}\nmodels:\n"
        "  - model: org/model+org/adapter\n    parameters:\n      weight: 1\n"
        "  - model: org/other\n"
        "  - model: nowhere\ntokenizer:\n  source: org/words\n",
        encoding="utf-8",
    )
    error = located(ModelError("no config.json", file=missing), path)
    assert type(error) is ModelError
    assert str(error) == f"{path}:{place}: {missing}: no config.json"


def test_an_error_of_a_model_of_an_inner_merge_or_a_mixture_names_its_line(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "name: inner\nmerge_method: linear\nmodels:\n  - {model: a/a}\n  - {model: b/b}\n---\n"
        "base_model: inner\nexperts:\n  - source_model: inner\n  - source_model: c/c\n",
        encoding="utf-8",
    )
    for missing, place in (("b/b", "5: models.1.model"), ("c/c", "10: experts.1.source_model")):
        error = located(ModelError("gone", file=missing), path)
        assert str(error) == f"{path}:{place}: {missing}: gone"


def test_an_error_of_a_file_that_the_recipe_does_not_name_stays_as_it_is(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("merge_method: linear\nmodels:\n  - {model: a/a}\n", encoding="utf-8")
    error = ModelError("holds NaN", file="a/a/model.safetensors")
    assert located(error, path) is error
