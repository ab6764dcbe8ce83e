import copy

import pytest
from jsonschema import Draft202012Validator

from evomerge import yaml_file
from evomerge.config import Campaign
from evomerge.errors import CampaignError
from evomerge.preflight.schema import json_schema


@pytest.fixture(scope="module")
def schema():
    found = json_schema()
    Draft202012Validator.check_schema(found)
    return found


@pytest.fixture(scope="module")
def faults(schema):
    validator = Draft202012Validator(schema)
    return lambda data: [error.message for error in validator.iter_errors(data)]


@pytest.fixture(scope="module")
def shipped(pytestconfig):
    return sorted((pytestconfig.rootpath / "search_spaces").glob("*.yaml"))


SHORT = {
    "name": "short",
    "models": {"base": "b", "experts": ["e", {"model": "f"}, {"model": "g", "name": "h"}]},
    "space": {"method": "ties", "parameters": {"weight": {"low": 0, "high": 1}, "density": 1}},
    "objectives": [{"task": "t", "metric": "acc"}],
}


def changed(data, path, value):
    data = copy.deepcopy(data)
    node = data
    for key in path[:-1]:
        node = node.setdefault(key, {}) if isinstance(node, dict) else node[key]
    node[path[-1]] = value
    return data


def test_the_schema_names_every_field_of_the_file(schema):
    assert {"models", "space", "objectives", "items", "search", "workers", "scorer"} <= set(
        schema["properties"]
    )
    assert "from" in schema["$defs"]["ItemCounts"]["properties"]
    assert schema["additionalProperties"] is False


def test_every_field_is_described(schema):
    types = {"": schema, **schema["$defs"]}
    bare = [
        f"{name}.{field}"
        for name, of_type in types.items()
        for field, stated in of_type["properties"].items()
        if not stated.get("description")
    ]
    assert bare == []
    assert schema["$defs"]["Search"]["properties"]["trials"]["description"].startswith("Budget")
    assert all("Attributes:" not in of_type["description"] for of_type in types.values())


def test_shipped_files_validate_as_they_are_and_as_they_are_printed(faults, shipped):
    assert len(shipped) >= 10
    for path in shipped:
        assert faults(yaml_file.read(path).data) == [], path
        assert faults(yaml_file.parse(Campaign.load(path).to_yaml()).data) == [], path


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("space", "method"), ["ties", "dare_ties"]),
        (("space",), {"method": "auto"}),
        (("space", "layers"), "each"),
        (("space", "layers"), [[0, 1], [1, 4]]),
        (("space", "parameters", "weight"), 0.5),
        (("space", "parameters", "weight", "experts"), {"e": {"low": 0, "high": 2}, "f": 0.4}),
        (("space", "parameters", "normalize"), True),
        (("objectives", 0, "report"), None),
        (("items",), {"search": 3, "from": {"holdout": "test"}}),
        (("workers",), {"count": 0, "gpus": 0.5}),
        (("out",), None),
        (("out",), "somewhere"),
        (("scorer",), {"backend": "hf", "args": {"device": "cpu"}}),
    ],
)
def test_what_a_user_may_write_validates(faults, path, value):
    data = changed(SHORT, path, value)
    assert faults(data) == []
    Campaign.from_document(yaml_file.parse(yaml_file.dump(data)))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("naem",), "x"),
        (("name",), ""),
        (("models", "experts"), []),
        (("models", "experts", 1), {"name": "no model"}),
        (("models", "dtype"), "fp8"),
        (("space", "parameters", "weight"), [0, 1]),
        (("space", "parameters", "weight"), {"low": 0}),
        (("space", "parameters", "weight", "experts"), "x"),
        (("space", "layers"), 0),
        (("space", "layers"), [[0, 1, 2]]),
        (("space", "method"), []),
        (("objectives",), []),
        (("objectives", 0, "weight"), 0),
        (("search", "pruner"), "median"),
        (("search", "trials"), 0),
        (("search", "trials"), 1.5),
        (("items", "search"), "many"),
        (("items", "from"), {"search": "dev"}),
        (("workers", "count"), "all"),
        (("workers", "gpus"), -1),
        (("mode",), "front"),
        (("out",), ""),
    ],
)
def test_what_the_program_refuses_does_not_validate(faults, path, value):
    data = changed(SHORT, path, value)
    assert faults(data) != []
    with pytest.raises(CampaignError):
        Campaign.from_document(yaml_file.parse(yaml_file.dump(data)))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("space", "method"), "tise"),
        (("space", "method"), ["ties", "ties"]),
        (("space", "parameters", "wieght"), 1),
        (("space", "parameters", "density"), 1.5),
        (("space", "parameters", "normalize"), 1),
        (("space", "parameters", "weight"), True),
    ],
)
def test_methods_and_their_parameters_are_known_to_the_schema(faults, path, value):
    assert faults(changed(SHORT, path, value)) != []


def test_methods_of_a_users_file_and_their_parameters_are_his_own(faults):
    own = {"method": "mine", "parameters": {"strength": {"low": 0, "high": 1}, "flag": True}}
    data = {**SHORT, "space": own}
    assert faults(data) != []
    assert faults({**data, "methods": None}) != []
    assert faults({**data, "methods": "mine.py"}) == []
    assert faults({**data, "space": [own, SHORT["space"]], "methods": "mine.py"}) == []
    assert faults({**data, "space": [own, SHORT["space"]]}) != []
    own["parameters"]["flag"] = "yes"
    assert faults({**data, "methods": "mine.py"}) != []
