"""What the forms of mergekit's files have in common: models, dtypes, and faults as one line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, NoReturn, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from evomerge.candidate.tables import Tables
from evomerge.errors import RecipeError, nearest
from evomerge.yaml_file import Document, Location

T = TypeVar("T", bound=Tables)
DTYPES = ("float32", "bfloat16", "float16", "float64")
_EXPECTED: Mapping[str, str] = {
    "string_type": "text",
    "string_too_short": "text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "int_type": "a whole number of at least {low}",
    "greater_than_equal": "a whole number of at least {low}",
}
"""Pydantic's name of a fault → what was expected."""
_FROM_ONE = ("pad_to_multiple_of", "experts_per_token")
_NO_HINTS: Mapping[str, str] = MappingProxyType({})


class FormError(ValueError):
    """A fault that a validator of ours found, with its place within what it validates."""

    def __init__(self, message: str, *location: str | int) -> None:
        self.message, self.location = message, location
        super().__init__(message)


class Form(BaseModel):
    """A mapping of a file; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", strict=True)


def first_fault(
    document: Document,
    error: ValidationError,
    known: Callable[[Location], Iterable[str]],
    hints: Mapping[str, str] = _NO_HINTS,
) -> RecipeError:
    """Return the first fault as one line; a misspelt key may be missing, too, so it comes first.

    Args:
        document: What was validated.
        error: What pydantic found.
        known: Place of an unknown key → the keys that may stand there.
        hints: Missing key → an example of it.
    """
    errors = error.errors()
    unknown = (one for one in errors if one["type"] == "extra_forbidden")
    found = next(unknown, errors[0])
    kind, location = found["type"], found["loc"]
    cause = found.get("ctx", {}).get("error")
    if kind == "extra_forbidden":
        message = f'unknown key "{location[-1]}"; {nearest(str(location[-1]), known(location))}'
    elif kind == "missing":
        example = hints.get(str(location[-1]))
        hint = "" if example is None else f", such as {location[-1]}: {example}"
        message, location = f"{location[-1]} is missing{hint}", location[:-1]
    elif isinstance(cause, FormError):
        message, location = cause.message, (*location, *cause.location)
    else:
        low = int(location[-1] in _FROM_ONE)
        message = f"found {described(found['input'])}, expected {_EXPECTED[kind].format(low=low)}"
    return document.error(RecipeError, location, message)


def refuse(value: object, expected: str, *where: str | int) -> NoReturn:
    """Refuse a value, as a FormError."""
    raise FormError(f"found {described(value)}, expected {expected}", *where)


def only(value: Mapping[str, object], known: tuple[str, ...], *where: str | int) -> None:
    """Refuse keys that are not known."""
    for key in value:
        if key not in known:
            raise FormError(f'unknown key "{key}"; {nearest(key, known)}', *where, key)


def described(value: object) -> str:
    """Return a value as messages show it."""
    if isinstance(value, BaseModel | Mapping):
        return "a mapping"
    return "nothing" if value is None else "a list" if isinstance(value, list) else repr(value)


def model_name(value: object) -> object:
    """A model's name; mergekit's mapping of its parts is folded into `PATH@REVISION+ADAPTER`."""
    if not isinstance(value, Mapping):
        return value
    only(value, ("model", "lora", "override_architecture"))
    if value.get("override_architecture") is not None:
        raise FormError("overriding the architecture is not supported", "override_architecture")
    if "model" not in value:
        raise FormError("model is missing")
    model = _path(value["model"], "model")
    lora = value.get("lora")
    return model if lora is None else f"{model}+{_path(lora, 'lora')}"


def read_tables(document: Document, field: str, name: str, kind: type[T]) -> T:
    """Read a file of tables that a document names, relative to its folder.

    Args:
        document: The file.
        field: Where it names the tables.
        name: Their file.
        kind: What they are.

    Raises:
        RecipeError: The file is missing, or holds something else.
    """
    path = Path(name) if document.path is None else document.path.parent / name
    try:
        return kind.read(path.read_bytes())
    except FileNotFoundError:
        fault = "does not exist; the recipe cannot be merged without it, copy it along"
    except OSError as error:
        fault = f"cannot be read: {error.strerror or error}"
    except ValueError as error:
        fault = str(error)
    raise document.error(RecipeError, (field,), f"{path}: {fault}")


def _path(value: object, where: str) -> str:
    parts: list[tuple[object, tuple[str, ...]]] = [(value, (where,))]
    if isinstance(value, Mapping):
        only(value, ("path", "revision"), where)
        parts = [(value.get("path"), (where, "path"))]
        if value.get("revision") is not None:
            parts.append((value["revision"], (where, "revision")))
    for part, place in parts:
        if not isinstance(part, str) or not part:
            raise FormError(f"found {described(part)}, expected text", *place)
    return "@".join(str(part) for part, _ in parts)


def _dtype(value: object) -> object:
    """`torch.` before a dtype is mergekit's, and dropped."""
    if not isinstance(value, str) or not value:
        return None if value is None else refuse(value, "text")
    name = value.removeprefix("torch.")
    if name not in DTYPES:
        raise FormError(f'found "{name}", expected one of {", ".join(DTYPES)}')
    return name


Text = Annotated[str, Field(min_length=1)]
Model = Annotated[Text, BeforeValidator(model_name)]
Dtype = Annotated[str | None, BeforeValidator(_dtype)]
