"""Overrides of single tokens."""

from __future__ import annotations

import pytest

from evomerge.candidate import TokenSource, dumps, loads, located, token_sources
from evomerge.errors import RecipeError

TEXT = """\
merge_method: linear
models: [{model: a, parameters: {weight: 1}}]
tokenizer:
  source: union
  tokens:
    <a>: {source: org/one}
    <b>: {source: {kind: model_token, model: {model: {path: org/two, revision: x}}, token: c}, force: true}
    <c>: {source: {kind: model_token, model: m, token_id: 3}}
    <d>: {source: {kind: zero}}
    <e>: {source: {model: {path: org/one}, lora: {path: org/lora}}}
    <f>: {}
"""


def test_every_form_of_mergekits():
    recipe = loads(TEXT)
    assert recipe.vocabulary is not None
    assert token_sources(recipe.vocabulary.tokens) == {
        "<a>": TokenSource("model", "org/one"),
        "<b>": TokenSource("model_token", "org/two@x", token="c", force=True),
        "<c>": TokenSource("model_token", "m", token_id=3),
        "<d>": TokenSource("zero"),
        "<e>": TokenSource("model", "org/one+org/lora"),
        "<f>": TokenSource("none"),
    }
    assert loads(dumps(recipe)) == recipe


def test_models_are_renamed_everywhere():
    recipe = loads(TEXT.replace("source: union", "source: m"))
    renamed = recipe.renamed(lambda name: f"new/{name}")
    assert renamed.vocabulary is not None
    assert renamed.vocabulary.source == "new/m"
    found = token_sources(renamed.vocabulary.tokens)
    assert found["<c>"].model == "new/m"
    assert found["<a>"].model == "new/org/one"
    assert loads(TEXT).renamed(str.upper).vocabulary.source == "union"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("3", "found 3, expected"),
        ("{sauce: m}", 'unknown key "sauce"; did you mean "source"'),
        ("{source: 3}", "found 3, expected a model"),
        ("{source: m, force: maybe}", "found 'maybe', expected true or false"),
        ("{force: true}", "force needs a source"),
        ("{source: {kind: one}}", 'found kind "one"'),
        ("{source: {kind: model_token, token: a}}", "model is missing"),
        ("{source: {kind: model_token, model: m}}", "either token or token_id"),
        ("{source: {kind: model_token, model: m, token: a, token_id: 1}}", "either token or"),
        ("{source: {kind: model_token, model: m, token_id: -1}}", "found -1, expected a token's"),
        ("{source: {kind: zero, model: m}}", 'unknown key "model"'),
    ],
)
def test_wrong_overrides(override, message):
    text = TEXT.replace("{source: org/one}", override)
    with pytest.raises(RecipeError, match=message) as caught:
        loads(text, "recipe.yaml")
    assert caught.value.line == 6
    assert "<a>" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("models: []\ntokenizer_source: nope\n", "tokenizer_source"),
        ("models: []\ntokenizer: {source: nope}\n", "tokenizer.source"),
    ],
)
def test_an_error_about_the_source_finds_either_form(text, field, tmp_path):
    (tmp_path / "r.yaml").write_text(text)
    error = located(RecipeError("no such folder", field="tokenizer.source"), tmp_path / "r.yaml")
    assert (error.line, error.field) == (2, field)
