"""What pydantic found wrong in a YAML file, in the words of the user who wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

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
    document: Document, error: ValidationError, sections: Mapping[str, type[BaseModel]]
) -> CampaignError:
    """Turn the first finding into one line: file, line, field, found, expected.

    Args:
        document: The file.
        error: What pydantic found.
        sections: Key of a section → its model, to name the known fields; "" is the whole file. Where a
            key has two meanings, `OUTER.KEY` is the one within the section `OUTER`.
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
        shown = repr(found["input"])
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        message = f"found {shown}, expected: {message.removeprefix('Input should be ')}"
    located = document.error(CampaignError, location, message)
    return CampaignError(message, file=located.file, line=located.line, field=located.field)


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
