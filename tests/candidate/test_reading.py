"""mergekit's forms, and one line for each thing that can be wrong."""

from __future__ import annotations

import pytest

from evomerge.candidate import Conditional, Source, Vocabulary, loads
from evomerge.errors import RecipeError


def test_mergekit_forms():
    recipe = loads(
        """
merge_method: ties
base_model: {model: {path: org/base, revision: main}}
slices:
  - sources:
      - model: {model: one, lora: two}
        layer_range: [0, 2]
        parameters: {weight: {filter: mlp, value: [0, 1e-3]}}
      - {model: three, layer_range: [2, 4]}
    base_model: three
    residual_weight: 0.5
    parameters:
      density:
        - {filter: "*", value: 0.5}
        - value: 1
parameters: {normalize: yes, int8_mask: true, t: [0.1, 0.2]}
dtype: torch.bfloat16
tokenizer_source: union
"""
    )
    assert recipe.base_model == "org/base@main"
    piece = recipe.slices[0]
    assert piece.sources[0] == Source(
        "one+two", (0, 2), {"weight": (Conditional((0, 1e-3), "mlp"),)}
    )
    assert piece.base_model == "three"
    assert piece.parameters == {"density": (Conditional(0.5, "*"), Conditional(1))}
    assert recipe.parameters == {"normalize": "yes", "int8_mask": True, "t": (0.1, 0.2)}
    assert recipe.dtype == "bfloat16"
    assert recipe.vocabulary == Vocabulary("union")
    assert recipe.seed == 0


def test_one_module_is_folded_into_the_recipe():
    recipe = loads(
        """
merge_method: linear
modules:
  default:
    models: [{model: a}, {model: b}]
    parameters:
      weight: [{filter: mlp, value: 0.5}]
      lambda: 2
parameters: {weight: 1, normalize: false, lambda: 3}
"""
    )
    assert [source.model for source in recipe.models] == ["a", "b"]
    assert recipe.parameters == {
        "weight": (Conditional(0.5, "mlp"), Conditional(1)),
        "lambda": 2,
        "normalize": False,
    }


@pytest.mark.parametrize(
    ("wider", "expected"),
    [
        ("[0.1, 0.9]", (Conditional(0.5, "mlp"), Conditional((0.1, 0.9)))),
        ("[{value: 0.2}]", (Conditional(0.5, "mlp"), Conditional(0.2))),
    ],
)
def test_a_module_scope_falls_through(wider, expected):
    recipe = loads(
        "merge_method: linear\nmodules: {m: {models: [{model: a}], "
        "parameters: {weight: [{filter: mlp, value: 0.5}]}}}\n"
        f"parameters: {{weight: {wider}}}\n"
    )
    assert recipe.parameters == {"weight": expected}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: [{model: a}]", "merge_method is missing"),
        ("merge_method: ties", "expected one of models, slices and modules, found none of them"),
        ("merge_method: t\nmodels: [{model: a}]\nslices: [{}]", "found models and slices"),
        (
            "merge_method: t\nmodel: [{model: a}]",
            'r.yaml:2: model: unknown key "model"; did you mean',
        ),
        ("merge_method: t\nmodels: [{model: a, wieght: 1}]", "models.0.wieght: unknown key"),
        ("merge_method: t\nmodels: [{parameters: {}}]", "models.0: model is missing"),
        ("merge_method: t\nmodels: [a]", "models.0: found 'a', expected a mapping"),
        ("merge_method: t\nmodels: {model: a}", "models: found a mapping, expected a list"),
        ("merge_method: [t]\nmodels: [{model: a}]", "merge_method: found a list, expected text"),
        (
            "merge_method: t\nmodels:\n  - model: a\n    parameters: {weight: .nan}",
            "r.yaml:4: models.0.parameters.weight: found nan, expected a finite number",
        ),
        (
            "merge_method: t\nmodels: [{model: a}]\nparameters: {w: [[1]]}",
            "parameters.w.0: found a list, expected a value",
        ),
        (
            "merge_method: t\nmodels: [{model: a}]\nparameters: {w: [{filter: x}]}",
            "parameters.w.0: value is missing",
        ),
        (
            "merge_method: t\nslices: [{sources: [{model: a, layer_range: [3, 2]}]}]",
            "slices.0.sources.0.layer_range: found [3, 2], expected 0 <= start <= stop",
        ),
        (
            "merge_method: t\nslices: [{sources: [{model: a, layer_range: [3]}]}]",
            "expected two whole numbers",
        ),
        ("merge_method: t\nslices: [{sources: []}]", "slices.0: sources is missing or empty"),
        (
            "merge_method: t\nmodels: [{model: a}]\ndtype: float",
            'found "float", expected one of float32, ',
        ),
        ("merge_method: t\nmodels: [{model: a}]\nseed: -1", "a whole number of at least 0"),
        ("merge_method: t\nmodels: [{model: a}]\nchat_template: 3", "found 3, expected text"),
        (
            "merge_method: t\nmodels: [{model: a}]\ntokenizer_source: union\ntokenizer: {}",
            "tokenizer: give either tokenizer or tokenizer_source",
        ),
        (
            "merge_method: t\nmodels: [{model: a}]\ntokenizer: {pad_to_multiple_of: 0}",
            "tokenizer.pad_to_multiple_of: found 0",
        ),
        (
            "merge_method: t\nmodels: [{model: {model: a, override_architecture: X}}]",
            "overriding the architecture is not supported",
        ),
        ("merge_method: t\nmodels: [{model: {lora: a}}]", "models.0.model: model is missing"),
        (
            "merge_method: t\nmodules: {a: {models: [{model: a}]}, b: {models: [{model: a}]}}",
            "modules: found 2 modules (a, b)",
        ),
        ("merge_method: t\nmodules: {a: {parameters: {}}}", "expected either models or slices"),
        ("merge_method: t\nmerge_method: u", "r.yaml:2: duplicate key"),
        ("merge_method: [t", "not valid YAML"),
        ("- a", "expected a mapping of fields"),
    ],
)
def test_errors_name_file_line_and_field(text, message):
    with pytest.raises(RecipeError) as caught:
        loads(text, "r.yaml")
    line = str(caught.value)
    assert message in line
    assert line.startswith("r.yaml")
    assert "\n" not in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dtype: 3", "dtype: found 3, expected text"),
        ("base_model: ''", "base_model: found '', expected text"),
        ("seed: 1.5", "seed: found 1.5, expected a whole number of at least 0"),
        ("seed: true", "seed: found True, expected a whole number of at least 0"),
        ("parameters: [1]", "parameters: found a list, expected a mapping"),
        ("parameters: {w: {filter: 1, value: 2}}", "parameters.w.filter: found 1, expected text"),
        (
            "parameters: {w: {vlaue: 2}}",
            'parameters.w.vlaue: unknown key "vlaue"; did you mean "value"',
        ),
        ("tokenizer: {pad_to_multiple_of: x}", "found 'x', expected a whole number of at least 1"),
        ("tokenizer: {sorce: x}", 'tokenizer.sorce: unknown key "sorce"; did you mean "source"'),
        ("tokenizer: union", "tokenizer: found 'union', expected a mapping"),
        (
            "base_model: {model: {path: a, revision: 1}}",
            "base_model.model.revision: found 1, expected",
        ),
        (
            "base_model: {model: a, lroa: b}",
            'base_model.lroa: unknown key "lroa"; did you mean "lora"',
        ),
        (
            "modules: {m: {model: []}}",
            'modules.m.model: unknown key "model"; did you mean "models"',
        ),
    ],
)
def test_values_of_another_kind_are_described(text, message):
    with pytest.raises(RecipeError) as caught:
        loads(f"merge_method: t\nmodels: [{{model: a}}]\n{text}\n", "r.yaml")
    assert message in str(caught.value)
    assert caught.value.line == 3


def test_what_is_given_as_nothing_is_not_given():
    recipe = loads("merge_method: t\nmodels: [{model: a, parameters: }]\nslices:\nbase_model:\n")
    assert recipe.models == (Source("a"),)
    assert (recipe.base_model, recipe.slices) == (None, ())
