"""What is wrong in a campaign file, in the words of the user who wrote it: file, line, field."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from evomerge import yaml_file
from evomerge.errors import CampaignError, UserError, nearest

Location = Sequence[int | str]

FORMS: Mapping[str, str] = {
    "models": "a mapping, such as {base: MODEL, experts: [MODEL, MODEL]}",
    "models.experts": "a list of models, such as [ORG/NAME, ./folder]",
    "models.experts.*": "a model, or {model: MODEL, name: NAME}",
    "space": "a mapping, such as {method: linear, parameters: {weight: {low: 0, high: 1}}}, or a list",
    "space.method": "a method, or a list of methods",
    "space.layers": "a number of groups, each, or a list of [start, stop) pairs, such as [[0, 2], [2, 4]]",
    "space.components": "a list of parts of tensor names, such as [self_attn, mlp]",
    "space.parameters": "a mapping, such as {weight: {low: 0, high: 1}}",
    "space.parameters.*": "a value, or a range, such as {low: 0, high: 1}",
    "space.parameters.*.per": "a list of expert, layer and component, or some of them",
    "space.parameters.*.experts": "a mapping, such as {EXPERT: {low: 0, high: 1}, EXPERT: 0.5}",
    "space.parameters.*.experts.*": "a number, or a range, such as {low: 0, high: 1}",
    "objectives": "a list, such as [{task: TASK, metric: METRIC}]",
    "objectives.*.until": 'a list of texts, such as ["<|end|>"]',
    "objectives.*": "{task: TASK, metric: METRIC}",
    "keep": "a list, such as [{task: TASK, at_least: 0.95}, {cost: COST, at_most: 1.5}]",
    "keep.*": "{task: TASK, at_least: SHARE}, or {cost: COST, at_most: TIMES}",
    "costs": "a list, such as [{cost: generated_tokens, weight: 0.1}]",
    "costs.*": "{cost: COST, weight: WEIGHT}",
    "items": "a mapping, such as {search: 64, select: 64, holdout: 200}",
    "items.from": "a mapping, such as {search: train, select: validation, holdout: test}",
    "prompt": "a mapping, such as {apply_chat_template: true}",
    "search.scales": "a list of group, tensor and row, or some of them",
    "search": "a mapping, such as {sampler: auto, trials: 200}",
    "workers": "a mapping, such as {count: auto}",
    "workers.count": "a number of workers, or auto",
    "workers.batch_tokens": "a number of tokens, or auto",
    "scorer": "a mapping, such as {backend: hf}",
    "scorer.args": "a mapping, such as {batch_size: 16}",
    "loggers": "a list, such as [tensorboard, {name: wandb, project: PROJECT}]",
    "loggers.*": "a logger, or {name: LOGGER, OPTION: VALUE}",
}
"""Field → what is expected there; `*` is a place in a list, or a name that the user chose."""

_EXPECTED: Mapping[str, str] = {
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
"""Pydantic's name of a fault → what was expected."""
_BOUNDS = ("greater_than", "greater_than_equal", "string_too_short", "too_short")


class FieldError(ValueError):
    """A fault found by a validator that sees several fields; it names the one at fault.

    Args:
        message: What was found and what was expected.
        location: Of that field, from what the validator validates: `("experts", "facts", "low")`.
    """

    def __init__(self, message: str, *location: int | str) -> None:
        self.message, self.location = message, location
        super().__init__(": ".join([".".join(map(str, location)), message]))


class MissingFieldError(FieldError):
    """A field without a default, which only some settings of its neighbours need."""

    def __init__(self, name: str) -> None:
        super().__init__(f'is missing; expected the field "{name}"', name)


@contextmanager
def at_field(
    field: str, kind: type[UserError] | None = None, *, own: bool = False
) -> Iterator[None]:
    """Let an error name a field of the campaign file (unless it may keep its own) and be of another kind."""
    try:
        yield
    except UserError as error:
        raise (kind or type(error))(
            error.message, file=error.file, line=error.line, field=(own and error.field) or field
        ) from error


@contextmanager
def located(file: Path | None) -> Iterator[None]:
    """Let an error that names a field of a campaign name its file and line, too; None: leave it so."""
    try:
        yield
    except UserError as error:
        if error.field is None or file is None:
            raise
        document = yaml_file.read(file, CampaignError)
        parts = [int(part) if part.isdigit() else part for part in error.field.split(".")]
        line = "" if error.line is None else f":{error.line}"
        place = "" if error.file is None else f"{error.file}{line}: "
        raise document.error(type(error), parts, place + error.message) from error


def first_error(
    document: yaml_file.Document, error: ValidationError, settings: type[BaseModel]
) -> CampaignError:
    """Turn what pydantic found first into one line: file, line, field, found, expected.

    Args:
        document: The file.
        error: What pydantic found.
        settings: What the file was validated as.
    """
    errors = error.errors()
    unknown = (one for one in errors if one["type"] == "extra_forbidden")
    found = next(unknown, errors[0])  # a misspelt field is missing, too
    kind, message = found["type"], found["msg"]
    cause = found.get("ctx", {}).get("error")
    within = cause.location if isinstance(cause, FieldError) else ()
    absent = kind == "missing" or isinstance(cause, MissingFieldError)
    location = _in_file(document, (*found["loc"], *within), absent=absent)
    if kind == "extra_forbidden":
        hint = nearest(str(location[-1]), _known_fields(settings, location[:-1]))
        message = f'unknown key "{location[-1]}"; {hint}'
    elif kind == "missing":
        message = f'is missing; expected the field "{location[-1]}"'
    elif isinstance(cause, FieldError):
        message = cause.message
    elif kind == "value_error":
        message = message.removeprefix("Value error, ")
    else:
        message = f"found {_shown(found['input'])}, expected {_expected(found, location)}"
    return document.error(CampaignError, location, message)


def _expected(found: ErrorDetails, location: Location) -> str:
    """Say what would be right: by the field where the value is of another kind, else by the fault."""
    kind, value, context = found["type"], found["input"], found.get("ctx", {})
    form = next((form for field, form in FORMS.items() if _is(location, field)), None)
    if form is not None and kind not in _BOUNDS:
        return _as_range(value) if "range" in form and _as_range(value) else form
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", context["expected"])
        hint = nearest(str(value), known)
        return f"one of {', '.join(known)}" + (f"; {hint}" if hint.startswith("did") else "")
    if kind == "string_type" and isinstance(value, int | float):
        return f'a text, such as "{_shown(value)}" in quotes'
    if kind in _EXPECTED:
        return _EXPECTED[kind].format(**context)
    return found["msg"].removeprefix("Input should be ")


def _is(location: Location, field: str) -> bool:
    if len(location) > 1 and location[0] == "space" and isinstance(location[1], int):
        location = ("space", *location[2:])  # of one of several
    parts = field.split(".")
    return len(parts) == len(location) and all(
        part in ("*", str(here)) for part, here in zip(parts, location, strict=True)
    )


def _as_range(value: object) -> str:
    """Write two ascending numbers in a list as the range that was meant; empty: the value is another."""
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


def _in_file(document: yaml_file.Document, location: Location, *, absent: bool) -> Location:
    """Drop from pydantic's location the names of union branches, which no user typed."""
    kept: list[int | str] = []
    node: Any = document.data
    for part in location:
        of_mapping = isinstance(node, dict) and part in node
        if of_mapping or (isinstance(node, list) and isinstance(part, int)):
            kept.append(part)
            node = node[part]
    return (*kept, location[-1]) if absent else kept


def _known_fields(settings: type[BaseModel], location: Location) -> list[str]:
    """Return the fields of the settings type at a location; places and names of the user's lead on."""
    here = [settings]
    for part in location:
        fields = [_fields(model).get(str(part)) for model in here]
        here = [model for field in fields if field for model in _models(field.annotation)] or here
    return [name for model in here for name in _fields(model)]


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    found = model.model_fields.items()
    return {field.alias or name: field for name, field in found if field.repr}


def _models(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]
