"""Typed access to a document's values."""

from __future__ import annotations

import pytest

from evomerge import yaml_file
from evomerge.candidate import fields
from evomerge.errors import RecipeError

DOCUMENT = yaml_file.parse("a: 1\nb: {c: text}\n")


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (fields.text, "x"),
        (fields.optional_text, None),
        (fields.whole, 3),
        (fields.mapping, {"c": 1}),
        (fields.sequence, [1]),
        (fields.dtype, "float16"),
    ],
)
def test_the_right_kind_is_returned(read, value):
    assert read(DOCUMENT, ("a",), value) == value


@pytest.mark.parametrize(
    ("read", "value", "found"),
    [
        (fields.text, "", "found ''"),
        (fields.text, None, "found nothing"),
        (fields.optional_text, 1, "found 1"),
        (fields.whole, True, "found True"),
        (fields.mapping, [], "found a list"),
        (fields.sequence, {}, "found a mapping"),
        (fields.dtype, "int8", 'found "int8"'),
    ],
)
def test_another_kind_is_an_error_with_its_line(read, value, found):
    with pytest.raises(RecipeError) as caught:
        read(DOCUMENT, ("b", "c"), value)
    assert found in str(caught.value)
    assert (caught.value.line, caught.value.field) == (2, "b.c")


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(RecipeError, match='unknown key "colour"; did you mean "color"'):
        fields.only(DOCUMENT, ("b",), {"colour": 1}, ["color", "size"])
