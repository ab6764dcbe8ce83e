from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from evomerge import yaml_file
from evomerge.validation import first_error


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int | bool = 1


class Whole(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    parts: list[Part] = []


def message(text):
    document = yaml_file.parse(text, path=Path("f.yaml"))
    with pytest.raises(ValidationError) as caught:
        Whole.model_validate(document.data)
    return str(first_error(document, caught.value, {"": Whole, "parts": Part}))


def test_an_unknown_key_comes_before_the_field_it_was_meant_to_be():
    assert message("nmae: x\n") == 'f.yaml:1: nmae: unknown key "nmae"; did you mean "name"?'


def test_known_fields_are_those_of_the_section():
    text = "name: x\nparts:\n  - {sise: 1}\n"
    assert message(text) == 'f.yaml:3: parts.0.sise: unknown key "sise"; did you mean "size"?'


def test_a_missing_field_is_named_where_it_should_stand():
    assert message("parts: []\n") == 'f.yaml: name: is missing; expected the field "name"'


def test_union_branches_do_not_show_in_the_field():
    found = message("name: x\nparts:\n  - {size: [1]}\n")
    assert found.startswith("f.yaml:3: parts.0.size: found [1], expected: a valid integer")


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    parts: dict[str, Part] = {}


class Twice(BaseModel):
    model_config = ConfigDict(extra="forbid")
    outer: Outer = Outer()


def test_a_key_of_two_meanings_is_told_apart_by_what_it_stands_in():
    document = yaml_file.parse("outer: {parts: {x: {sise: 1}}}\n", path=Path("f.yaml"))
    with pytest.raises(ValidationError) as caught:
        Twice.model_validate(document.data)
    sections = {"": Twice, "outer": Outer, "parts": Whole, "outer.parts": Part}
    error = first_error(document, caught.value, sections)
    assert 'unknown key "sise"; did you mean "size"?' in str(error)
