"""Faults name file, line and field, whether they are found at reading or later."""

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from evomerge import yaml_file
from evomerge.config import Campaign
from evomerge.config.faults import FORMS, FieldError, first_error, located
from evomerge.errors import CampaignError, ModelError, UserError

TEXT = """\
name: small
models:
  base: zoo:base
  experts:
    - zoo:facts
    - zoo:tools
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(TEXT)
    return path


@pytest.mark.parametrize(
    ("field", "line"),
    [("name", 1), ("models.base", 3), ("models.experts.1", 6), ("models.dtype", 2)],
)
def test_a_field_is_given_its_file_and_line(file, field, line):
    with pytest.raises(ModelError) as caught, located(file):
        raise ModelError("no such folder", field=field)
    assert str(caught.value) == f"{file}:{line}: {field}: no such folder"


def test_the_file_of_the_error_itself_is_kept_in_the_message(file):
    with pytest.raises(CampaignError) as caught, located(file):
        raise CampaignError("twice", field="models.experts.0", file="task.yaml", line=7)
    assert (caught.value.file, caught.value.line) == (str(file), 5)
    assert caught.value.message == "task.yaml:7: twice"


def test_without_a_campaign_file_or_a_field_the_error_stays_as_it_is(file):
    for place, field in ((None, "models.base"), (file, None)):
        error = UserError("bad", field=field)
        with pytest.raises(UserError) as caught, located(place):
            raise error
        assert caught.value is error


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
    return str(first_error(document, caught.value, Whole))


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
    parts: list[Whole] = []


def test_a_key_of_two_meanings_is_told_apart_by_what_it_stands_in():
    document = yaml_file.parse("outer: {parts: {x: {sise: 1}}}\n", path=Path("f.yaml"))
    with pytest.raises(ValidationError) as caught:
        Twice.model_validate(document.data)
    error = first_error(document, caught.value, Twice)
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
    assert str(first_error(document, caught.value, Pair)) == (
        "f.yaml:3: small.size: is above large.size"
    )


def test_a_field_left_to_its_default_is_named_by_its_section():
    document = yaml_file.parse("large: {size: 0}\nsmall: {}\n", path=Path("f.yaml"))
    with pytest.raises(ValidationError) as caught:
        Pair.model_validate(document.data)
    assert str(first_error(document, caught.value, Pair)) == (
        "f.yaml:2: small: is above large.size"
    )


def test_without_a_file_the_finding_names_its_field_itself():
    with pytest.raises(ValidationError, match=r"small\.size: is above large\.size"):
        Pair(small=Part(size=2), large=Part())


PLAIN = {
    "name": "small",
    "models": {"base": "zoo:base", "experts": ["zoo:facts", "zoo:tools"]},
    "space": {"method": "linear", "parameters": {"weight": {"low": 0.0, "high": 1.0}}},
    "objectives": [{"task": "a", "metric": "acc"}],
    "keep": [{"task": "a", "at_least": 0.9}],
    "costs": [{"cost": "parameters"}],
    "loggers": ["tensorboard"],
}


def refusal(field, value):
    """What is said of the plain campaign with another value in one field."""
    data = yaml_file.parse(yaml_file.dump(PLAIN)).data
    node = data
    *path, last = [int(part) if part.isdigit() else part for part in field.split(".")]
    for part in path:
        node = node[part] if isinstance(node, list) else node.setdefault(part, {})
    node[last] = value
    with pytest.raises(CampaignError) as caught:
        Campaign.from_document(yaml_file.parse(yaml_file.dump(data)))
    return str(caught.value)


@pytest.mark.parametrize("field", FORMS)
def test_each_form_is_told_where_another_kind_stands(field):
    place = field.replace("parameters.*", "parameters.weight").replace(".*", ".0")
    place = place.replace("experts.0", "experts.facts") if "weight" in place else place
    wrong = 3 if field != "workers.batch_tokens" and field != "workers.count" else "many"
    wrong = "x" if field in ("space.layers", "space.parameters.*") else wrong
    wrong = ["x"] if field.endswith("experts.*") and "parameters" in field else wrong
    assert FORMS[field] in refusal(place, wrong)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("space.parameters.weight", [0, 1], "found [0, 1], expected a range written as {low: 0, high: 1}"),
        ("space.parameters.weight", [-0.5, 2.0], "a range written as {low: -0.5, high: 2.0}"),
        ("space.parameters.weight", [1, 0], "expected a value, or a range, such as"),
        ("space.parameters.weight", {"low": 0, "high": 1, "experts": {"facts": [0, 1]}}, "a range written"),
        ("models.experts", "zoo:facts", 'models.experts: found "zoo:facts", expected a list of models'),
        ("models.experts", [], "found [], expected at least one entry"),
        ("models.base", 3, 'found 3, expected a text, such as "3" in quotes'),
        ("name", None, "found nothing, expected a text"),
        ("search.trials", 2.5, "found 2.5, expected a whole number"),
        ("objectives.0.weight", 0, "found 0, expected more than 0"),
        ("models.allow_pickle", "maybe", 'found "maybe", expected true or false'),
    ],
)  # fmt: skip
def test_what_was_found_and_what_was_expected(field, value, said):
    assert said in refusal(field, value)
