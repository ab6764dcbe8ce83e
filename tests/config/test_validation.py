from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from evomerge import yaml_file
from evomerge.config.validation import FieldError, first_error


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
    return str(first_error(document, caught.value, {"": Whole, "parts": Part}, {}))


def test_an_unknown_key_comes_before_the_field_it_was_meant_to_be():
    assert message("nmae: x\n") == 'f.yaml:1: nmae: unknown key "nmae"; did you mean "name"?'


def test_known_fields_are_those_of_the_section():
    text = "name: x\nparts:\n  - {sise: 1}\n"
    assert message(text) == 'f.yaml:3: parts.0.sise: unknown key "sise"; did you mean "size"?'


def test_a_missing_field_is_named_where_it_should_stand():
    assert message("parts: []\n") == 'f.yaml: name: is missing; expected the field "name"'


def test_union_branches_do_not_show_in_the_field():
    found = message("name: x\nparts:\n  - {size: [1]}\n")
    assert found.startswith("f.yaml:3: parts.0.size: found [1], expected a whole number")


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
    error = first_error(document, caught.value, sections, {})
    assert 'unknown key "sise"; did you mean "size"?' in str(error)


class Pair(BaseModel):
    small: Part
    large: Part

    @model_validator(mode="after")
    def _ordered(self):
        if self.small.size > self.large.size:
            raise FieldError("is above large.size", "small", "size")
        return self


def test_a_check_over_several_fields_names_one_of_them_and_its_line():
    document = yaml_file.parse("large: {size: 1}\nsmall:\n  size: 2\n", path=Path("f.yaml"))
    with pytest.raises(ValidationError) as caught:
        Pair.model_validate(document.data)
    assert str(first_error(document, caught.value, {"": Pair}, {})) == (
        "f.yaml:3: small.size: is above large.size"
    )


def test_a_field_left_to_its_default_is_named_by_its_section():
    document = yaml_file.parse("large: {size: 0}\nsmall: {}\n", path=Path("f.yaml"))
    with pytest.raises(ValidationError) as caught:
        Pair.model_validate(document.data)
    assert str(first_error(document, caught.value, {"": Pair}, {})) == (
        "f.yaml:2: small: is above large.size"
    )


def test_without_a_file_the_finding_names_its_field_itself():
    with pytest.raises(ValidationError, match=r"small\.size: is above large\.size"):
        Pair(small=Part(size=2), large=Part())
