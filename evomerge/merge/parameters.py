"""A recipe's settings → the values that hold for one tensor, by mergekit's rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from evomerge.candidate import Conditional, Scalar, Setting
from evomerge.errors import RecipeError
from evomerge.merge.methods.method import Method, Parameter, Value, Values

Scope = Mapping[str, Setting]
TRUE = ("true", "yes", "on", "1")
FALSE = ("false", "no", "off", "0")


def resolve(
    method: Method,
    scopes: Iterable[Scope],
    *,
    tensor: str,
    t: float,
    per_source: bool,
    model: str | None = None,
    required: bool = True,
) -> Values:
    """Return a value for every parameter of one kind, shared or a source's own.

    The first scope with a value wins; a list of filters that matches nothing falls through to the next.

    Args:
        method: Whose parameters.
        scopes: Highest precedence first.
        tensor: The name that filters are matched against.
        t: Position in the slice, 0 to 1, for gradients.
        per_source: Which parameters: those of each source, or the shared ones.
        model: For messages.
        required: Insist on required parameters (the base of a task vector needs none).

    Raises:
        RecipeError: A required parameter lacks a value for this tensor.
    """
    scopes = tuple(scopes)
    return completed(
        method,
        lambda name, spec: _first(scopes, name, spec, tensor, t),
        per_source=per_source,
        required=required,
        of=f"{tensor} of {model}" if model else tensor,
    )


def completed(
    method: Method,
    find: Callable[[str, Parameter], Value | None],
    *,
    per_source: bool,
    required: bool = True,
    of: str,
) -> Values:
    """Return a value for every parameter of one kind: what `find` finds, or else the default.

    Args:
        method: Whose parameters.
        find: Name and parameter → its value; None: none is given.
        per_source: Which parameters: those of each source, or the shared ones.
        required: Insist on required parameters.
        of: For messages.

    Raises:
        RecipeError: A required parameter has no value.
    """
    values: dict[str, Value] = {}
    for name, spec in method.parameters.items():
        if spec.per_source != per_source:
            continue
        value = find(name, spec)
        if value is None:
            value = spec.default
        if value is not None:
            values[name] = value
        elif spec.required and required:
            raise RecipeError(
                f"{method.name} needs a {name} for {of}, and nothing gives one",
                field=f"parameters.{name}",
            )
    return values


def evaluate(setting: Setting, spec: Parameter, tensor: str, t: float) -> Value | None:
    """Return what a setting says for one tensor; None where none of its filters matches.

    A gradient of numbers is linear between its points; of booleans and whole numbers it takes element
    floor(t · (n - 1)).

    Raises:
        RecipeError: A value is of the wrong kind or out of range.
    """
    if not isinstance(setting, tuple):
        return checked(setting, spec)
    if setting and isinstance(setting[0], Conditional):
        for condition in setting:
            assert isinstance(
                condition, Conditional
            )  # a setting holds conditionals or scalars only
            everything = condition.filter is None or condition.filter == "*"
            if everything or str(condition.filter) in tensor:
                return evaluate(condition.value, spec, tensor, t)
        return None
    points = [checked(value, spec) for value in setting if not isinstance(value, Conditional)]
    if not points:
        return None
    position = t * (len(points) - 1)
    before = int(position)
    if spec.kind != "number":
        return points[before]
    after = min(before + 1, len(points) - 1)
    share = position - before
    return (1 - share) * points[before] + share * points[after]


def checked(value: Scalar, spec: Parameter) -> Value:
    """Convert one value to the kind that its parameter takes; text counts as YAML 1.1 would read it.

    Raises:
        RecipeError: It is of another kind, not finite, or out of the legal range.
    """
    if spec.kind == "boolean":
        return _boolean(value)
    try:
        number = float(value)
    except ValueError:
        raise RecipeError(f"found {value!r}, expected a number") from None
    low, high = spec.low, spec.high
    if not math.isfinite(number):
        raise RecipeError(f"found {value}, expected a finite number")
    if spec.kind == "integer" and not number.is_integer():
        raise RecipeError(f"found {value}, expected a whole number")
    if (low is not None and number < low) or (high is not None and number > high):
        if low is not None and high is not None:
            raise RecipeError(f"found {value}, expected a number from {low:g} to {high:g}")
        bound = f"at least {low:g}" if low is not None else f"at most {high:g}"
        raise RecipeError(f"found {value}, expected a number of {bound}")
    return number


def _boolean(value: Scalar) -> bool:
    text = str(value).lower()
    if isinstance(value, bool) or value in (0, 1) or text in TRUE + FALSE:
        return text in TRUE or value == 1
    raise RecipeError(f"found {value!r}, expected true or false")


def _first(
    scopes: tuple[Scope, ...], name: str, spec: Parameter, tensor: str, t: float
) -> Value | None:
    for scope in scopes:
        if name in scope:
            value = evaluate(scope[name], spec, tensor, t)
            if value is not None:
                return value
    return None
