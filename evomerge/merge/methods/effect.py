"""What a method makes of one tensor as far as its numbers tell: equal effects are equal merges."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from evomerge.merge.methods.method import Value, Values

SUM = "sum"
DECIMALS = 9
"""Of the numbers that are compared: float32 tells no finer ones apart."""


@dataclass(frozen=True)
class Effect:
    """A merge of one tensor in a form that is the same for all settings that mean the same.

    Attributes:
        rule: How the inputs are joined; `SUM`: Σ factor · input.
        parts: Input → its numbers, of those that have a part in the result; of a `SUM` its factor.
        masked: Whether random masks are drawn.
    """

    rule: Hashable
    parts: Mapping[int, Hashable] = field(default_factory=dict)
    masked: bool = False


EffectOf = Callable[[Values, Sequence[Values], int | None], Effect]
"""Shared values, each input's own values, and which input is the base → effect."""


def summed(factors: Mapping[int, float]) -> Effect:
    """Return the effect of Σ factor · input; a factor of 0 leaves its input out."""
    near = {index: rounded(factor) for index, factor in factors.items()}
    return Effect(SUM, {index: factor for index, factor in near.items() if factor})


def as_written(shared: Values, own: Sequence[Values], base: int | None) -> Effect:
    """Return the effect of a method that says nothing of its own: every number counts."""
    parts = {index: (index == base, numbers(values)) for index, values in enumerate(own)}
    return Effect(numbers(shared), parts)


def numbers(values: Values) -> Hashable:
    """Return values as one value that can be compared."""
    return tuple(sorted((name, rounded(value)) for name, value in values.items()))


def rounded(value: Value) -> Value:
    """Round a number to what counts, a negative zero to zero."""
    return value if isinstance(value, bool) else round(value, DECIMALS) + 0.0
