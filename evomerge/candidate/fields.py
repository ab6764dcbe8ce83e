"""Values of a YAML document, each of the kind that is expected or an error that names its place.

Every function raises RecipeError with file, line, field, what was found and what was expected.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from evomerge.errors import RecipeError, nearest
from evomerge.yaml_file import Document, Location

DTYPES = ("float32", "bfloat16", "float16", "float64")


def dtype(document: Document, where: Location, value: object) -> str | None:
    """Return a dtype's name; `torch.` before it is mergekit's and dropped."""
    if value is None:
        return None
    name = text(document, where, value).removeprefix("torch.")
    if name not in DTYPES:
        raise document.error(
            RecipeError, where, f'found "{name}", expected one of {", ".join(DTYPES)}'
        )
    return name


def text(document: Document, where: Location, value: object) -> str:
    """Return text that is not empty."""
    if not isinstance(value, str) or not value:
        raise document.error(RecipeError, where, f"found {described(value)}, expected text")
    return value


def optional_text(document: Document, where: Location, value: object) -> str | None:
    """Return text, or None where nothing is given."""
    if value is not None and not isinstance(value, str):
        raise document.error(RecipeError, where, f"found {described(value)}, expected text")
    return value


def whole(document: Document, where: Location, value: object, low: int = 0) -> int:
    """Return a whole number of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise document.error(
            RecipeError,
            where,
            f"found {described(value)}, expected a whole number of at least {low}",
        )
    return value


def mapping(document: Document, where: Location, value: object) -> dict[str, Any]:
    """Return a mapping."""
    if not isinstance(value, Mapping):
        raise document.error(RecipeError, where, f"found {described(value)}, expected a mapping")
    return dict(value)


def sequence(document: Document, where: Location, value: object) -> list[Any]:
    """Return a list."""
    if not isinstance(value, list):
        raise document.error(RecipeError, where, f"found {described(value)}, expected a list")
    return value


def only(
    document: Document, where: Location, data: Mapping[str, object], known: Iterable[str]
) -> None:
    """Refuse keys that are not known, naming the nearest one."""
    known = tuple(known)
    for key in data:
        if key not in known:
            raise document.error(
                RecipeError, (*where, key), f'unknown key "{key}"; {nearest(key, known)}'
            )


def described(value: object) -> str:
    """Describe a value of the wrong kind."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, list) else repr(value)
