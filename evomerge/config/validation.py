"""What pydantic found wrong in a YAML file, in the words of the user who wrote it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from evomerge.errors import CampaignError, nearest
from evomerge.yaml_file import Document


class FieldError(ValueError):
    """A finding of a validator that sees several fields; it names the one at fault.

    Args:
        message: What was found and what was expected.
        location: Of that field, from what the validator validates: `("experts", "facts", "low")`.
    """

    def __init__(self, message: str, *location: int | str) -> None:
        self.message, self.location = message, location
        super().__init__(": ".join([".".join(map(str, location)), message]))


def first_error(
    document: Document,
    error: ValidationError,
    sections: Mapping[str, type[BaseModel]],
    forms: Mapping[str, str],
) -> CampaignError:
    """Turn the first finding into one line: file, line, field, found, expected.

    Args:
        document: The file.
        error: What pydantic found.
        sections: Key of a section → its model, to name the known fields; "" is the whole file. Where a
            key has two meanings, `OUTER.KEY` is the one within the section `OUTER`.
        forms: Dotted field → what is expected there instead of something of another kind; `*` stands for
            a place in a list or a name that the user chose.
    """
    errors = error.errors()
    unknown = (one for one in errors if one["type"] == "extra_forbidden")
    found = next(unknown, errors[0])  # a misspelt field is missing, too
    kind, message = found["type"], found["msg"]
    cause = found.get("ctx", {}).get("error")
    within = cause.location if isinstance(cause, FieldError) else ()
    location = _in_file(document, (*found["loc"], *within), absent=kind == "missing")
    if kind == "extra_forbidden":
        hint = nearest(str(location[-1]), _known_fields(location, sections))
        message = f'unknown key "{location[-1]}"; {hint}'
    elif kind == "missing":
        message = f'is missing; expected the field "{location[-1]}"'
    elif isinstance(cause, FieldError):
        message = cause.message
    elif kind == "value_error":
        message = message.removeprefix("Value error, ")
    else:
        expected = _expected(found, location, forms)
        message = f"found {_shown(found['input'])}, expected {expected}"
    located = document.error(CampaignError, location, message)
    return CampaignError(message, file=located.file, line=located.line, field=located.field)


_KINDS: Mapping[str, str] = {
    "string_type": "a text",
    "string_too_short": "a text that is not empty",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "tuple_type": "a list",
    "too_short": "at least one entry",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
}
"""What pydantic calls a finding → what was expected."""
_BOUNDS = ("greater_than", "greater_than_equal", "string_too_short", "too_short")


def _expected(
    found: ErrorDetails, location: tuple[int | str, ...], forms: Mapping[str, str]
) -> str:
    """Say what would be right, by the field where the value is of another kind, else by the finding."""
    kind, value, context = found["type"], found["input"], found.get("ctx", {})
    form = next((form for field, form in forms.items() if _is(location, field)), None)
    if form is not None and kind not in _BOUNDS:
        return _as_range(value) if "range" in form and _as_range(value) else form
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", context["expected"])
        hint = nearest(str(value), known)
        return f"one of {', '.join(known)}" + (f"; {hint}" if hint.startswith("did") else "")
    if kind == "string_type" and isinstance(value, int | float):
        return f'a text, such as "{_shown(value)}" in quotes'
    if kind in _KINDS:
        return _KINDS[kind].format(**context)
    return found["msg"].removeprefix("Input should be ")


def _is(location: tuple[int | str, ...], field: str) -> bool:
    parts = field.split(".")
    return len(parts) == len(location) and all(
        part in ("*", str(here)) for part, here in zip(parts, location, strict=True)
    )


def _as_range(value: object) -> str:
    """Write two ascending numbers in a list as the range that was meant; empty: it is nothing of the kind."""
    if not isinstance(value, list) or len(value) != 2:
        return ""
    low, high = value
    if not (isinstance(low, int | float) and isinstance(high, int | float) and low < high):
        return ""
    return f"a range written as {{low: {low}, high: {high}}}"


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    shown = json.dumps(value, ensure_ascii=False, default=str)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _in_file(
    document: Document, location: tuple[int | str, ...], *, absent: bool
) -> tuple[int | str, ...]:
    """Drop from pydantic's location the names of union branches, which no user typed."""
    kept: list[int | str] = []
    node: Any = document.data
    for part in location:
        of_mapping = isinstance(node, dict) and part in node
        if of_mapping or (isinstance(node, list) and isinstance(part, int)):
            kept.append(part)
            node = node[part]
    return (*kept, location[-1]) if absent else tuple(kept)


def _known_fields(
    location: tuple[int | str, ...], sections: Mapping[str, type[BaseModel]]
) -> list[str]:
    parents = [str(part) for part in location[:-1] if part in sections]
    within = ".".join(parents[-2:])
    model = sections[within if within in sections else parents[-1] if parents else ""]
    return [field.alias or name for name, field in model.model_fields.items()]
