"""The JSON schema of the campaign file, for editors: what a user may write, each field described."""

from __future__ import annotations

from typing import Any

from evomerge.config import Campaign, Search, SpaceSettings
from evomerge.config.space import AUTO
from evomerge.kinds import KINDS
from evomerge.merge.methods import METHODS, Parameter
from evomerge.search.samplers import SAMPLERS

DIALECT = "https://json-schema.org/draft/2020-12/schema"
NUMBERS = {"anyOf": [{"type": "number"}, {"$ref": "#/$defs/Range"}]}


def json_schema() -> dict[str, Any]:
    """Return the schema, in the dialect of 2020-12.

    It holds for a file as it may be written (short forms, defaults left out) and as `check --print` prints
    it. What takes several fields, the models or the tasks to refute is left to `evomerge check`.
    """
    schema = Campaign.model_json_schema(by_alias=True, mode="validation")
    space = schema["$defs"][SpaceSettings.__name__]["properties"]
    search = schema["$defs"][Search.__name__]["properties"]
    search["sampler"]["enum"] = ["auto", *SAMPLERS]
    specs = {name: _parameter(specs) for name, specs in _parameters().items()}
    space["parameters"] = {
        "type": "object",
        "description": space["parameters"]["description"],
        "properties": specs,
        "additionalProperties": {"anyOf": [{"type": "boolean"}, *NUMBERS["anyOf"]]},
    }
    return {"$schema": DIALECT, **schema, **_without_own_methods(list(specs))}


def _without_own_methods(parameters: list[str]) -> dict[str, Any]:
    """Return what holds besides where the campaign names no file of merge methods."""
    name = {"enum": [*METHODS, AUTO]}
    known = {
        "properties": {
            "method": {"anyOf": [name, {"type": "array", "items": name}]},
            "parameters": {"propertyNames": {"enum": parameters}},
        }
    }
    spaces = {"if": {"type": "array"}, "then": {"items": known}, "else": known}
    return {
        "if": {"properties": {"methods": {"type": "null"}}},
        "then": {"properties": {"space": spaces}},
    }


def _parameters() -> dict[str, list[Parameter]]:
    """Return each parameter of any method or kind with its specifications, in their order."""
    found: dict[str, list[Parameter]] = {}
    taken = [one.parameters for one in METHODS.values()]
    taken += [one.parameters for one in KINDS.values()]
    for parameters in taken:
        for name, spec in parameters.items():
            found.setdefault(name, []).append(spec)
    return found


def _parameter(specs: list[Parameter]) -> dict[str, Any]:
    described = {"description": specs[0].help}
    if specs[0].kind == "boolean":
        return described | {"type": "boolean"}
    value: dict[str, Any] = {"type": "integer" if specs[0].kind == "integer" else "number"}
    lows, highs = [spec.low for spec in specs], [spec.high for spec in specs]
    if None not in lows:
        value["minimum"] = min(low for low in lows if low is not None)
    if None not in highs:
        value["maximum"] = max(high for high in highs if high is not None)
    if specs[0].kind == "integer":
        return described | value
    return described | {"anyOf": [value, {"$ref": "#/$defs/Range"}]}
