"""The experts' values in one place, scaled so that they add up to a given sum."""

from __future__ import annotations

import numpy as np

from evomerge.space.groups import Numbers


def scaled(values: Numbers, total: float, part: Numbers) -> Numbers:
    """Return values of the sum `total`; where all are 0, equal shares for those that take part.

    Args:
        values: At least 0, the experts along the last axis; 0 for one that takes no part.
        total: What they shall add up to.
        part: 1 for an expert that takes part, 0 for another; shape [experts].
    """
    found = values.sum(axis=-1, keepdims=True)
    equal = np.broadcast_to(part / part.sum(), values.shape)
    shares: Numbers = np.divide(values, found, out=equal.copy(), where=found > 0)
    return shares * total


def scaled_gradients(values: Numbers, total: float, part: Numbers, gradients: Numbers) -> Numbers:
    """Return gradients by the values from gradients by what `scaled` makes of them.

    With v_e = s r_e / R the gradient by r_e is s / R (g_e - Σ_k g_k r_k / R). Where R is 0, v jumps; there
    the answer is the one of equal values that add up to s, which points the right way.

    Args:
        values: As for `scaled`.
        total: As for `scaled`.
        part: As for `scaled`.
        gradients: By the scaled values, shaped as `values`.
    """
    found = values.sum(axis=-1, keepdims=True)
    share = scaled(values, 1.0, part)
    mean = (gradients * share).sum(axis=-1, keepdims=True)
    by_value: Numbers = (gradients - mean) * total / np.where(found > 0, found, total)
    return by_value


def within(values: Numbers, high: Numbers) -> Numbers:
    """Return the values in the same proportions, small enough for none to exceed its `high`.

    Args:
        values: At least 0, the experts along the last axis.
        high: Largest value of each expert, above 0; shape [experts].
    """
    excess = (values / high).max(axis=-1, keepdims=True)
    kept: Numbers = values / np.maximum(excess, 1.0)
    return kept
