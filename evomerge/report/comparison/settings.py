"""In which settings, versions and hashes campaigns differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from evomerge.report.comparison.comparable import Sides
from evomerge.report.material import Material
from evomerge.report.summary import portable

_OWN = ("name", "out")
_FACTS = {
    "versions": "versions",
    "models": "model hashes",
    "revisions": "commits on the Hub",
    "prompts": "prompt hashes",
    "prompt files": "prompt file hashes",
    "answers": "answer hashes",
}
_KEYS = ("task", "name", "cost", "method")  # by which the entries of a list are told apart
_HASH = 12


@dataclass(frozen=True)
class Setting:
    """One field in which campaigns differ.

    Attributes:
        key: Its dotted path in `campaign.yaml`; or such as `versions.torch`, `model hashes.base`.
        values: What each campaign has, as YAML has it in one line; None where it has no such field.
    """

    key: str
    values: tuple[str | None, ...]


def unlike_settings(sides: Sides) -> tuple[Setting, ...]:
    """Return the settings, versions and hashes that are not the same in all campaigns.

    What each campaign was called, and its results folder, are left out.
    """
    found = [_settings(one) for one in sides.values()]
    keys = dict.fromkeys(key for each in found for key in each)
    rows = (Setting(key, tuple(each.get(key) for each in found)) for key in keys)
    return tuple(one for one in rows if len(set(one.values)) > 1)


def _settings(material: Material) -> dict[str, str]:
    campaign = material.campaign.model_dump(mode="json")
    recorded = {called: material.facts.get(name) for name, called in _FACTS.items()}
    facts = {called: values for called, values in recorded.items() if values}
    found = {key: value for key, value in campaign.items() if key not in _OWN} | facts
    return {key: _shown(value, material) for key, value in _flat(found, "")}


def _flat(value: Any, place: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - JSON
    """Give every field with its dotted path; the entries of a list by what they are called."""
    if isinstance(value, list):
        value = _named(value) or value
    if not isinstance(value, Mapping) or not value:
        yield place, value
        return
    for key, each in value.items():
        yield from _flat(each, f"{place}.{key}" if place else str(key))


def _named(entries: list[Any]) -> dict[str, Any] | None:
    """Return the entries of a list by their names, None where they have none or share them."""
    for key in _KEYS:
        if all(isinstance(one, Mapping) and isinstance(one.get(key), str) for one in entries):
            names = [one[key] for one in entries]
            if len(set(names)) == len(names):
                return {
                    name: {field: each for field, each in one.items() if field != key}
                    for name, one in zip(names, entries, strict=True)
                }
    return None


def _shown(value: Any, material: Material) -> str:  # noqa: ANN401 - JSON
    """Write a value in one line: local paths as seen from the results folder, hashes by their beginning."""
    if isinstance(value, str):
        path = portable(value, material.folder)
        is_hash = len(path) > 2 * _HASH and all(char in "0123456789abcdef" for char in path)
        return path[:_HASH] if is_hash else path
    return json.dumps(value, ensure_ascii=False)
