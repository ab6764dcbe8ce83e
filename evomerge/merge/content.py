"""When two merges are one model: by the numbers that hold for each tensor, however they are written."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import xxhash

from evomerge.candidate import Merge, Recipe
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.methods.method import DECIMALS, SUM, Method, Values, numbers, rounded
from evomerge.merge.plan import TensorPlan, plan_merge


def content(source: Merge | Recipe, checkpoints: Mapping[str, Checkpoint]) -> Hashable:
    """Return a value that is equal for merges of the same tensors, up to rounding.

    Weights that are normalised count relative to each other, models of weight 0 not at all, and methods that
    come to the same sum of models are the same.

    Args:
        source: What is merged.
        checkpoints: Every model that it names; headers will do.

    Raises:
        RecipeError: As `plan_merge` does.
        ModelError: As `plan_merge` does.
    """
    plan = plan_merge(source, checkpoints)
    written = (plan.dtype, repr(plan.vocabulary), plan.chat_template, plan.statistics)
    merged = tuple(_of_tensor(plan.method, tensor, plan.seed) for tensor in plan.tensors)
    return written, merged


def _of_tensor(method: Method, tensor: TensorPlan, seed: int) -> Hashable:
    places = list(zip(tensor.models, tensor.tensors, strict=True))
    own, rows = _first_rows(tensor)
    effect = method.effect(tensor.shared, own, tensor.base)
    if rows:
        inputs = zip(places, own, range(len(own)), strict=True)
        written = ((p, i == tensor.base, numbers(one), rows.get(i)) for p, one, i in inputs)
        return tensor.name, method.name, numbers(tensor.shared), frozenset(written), seed
    if effect.rule == SUM:
        factors: dict[tuple[str, str], float] = {}
        for index, factor in effect.parts.items():
            assert isinstance(factor, float)  # of a sum
            factors[places[index]] = factors.get(places[index], 0.0) + factor
        near = {place: rounded(factor) for place, factor in factors.items()}
        return tensor.name, SUM, frozenset((p, factor) for p, factor in near.items() if factor)
    parts = sorted(((places[index], part) for index, part in effect.parts.items()), key=repr)
    return tensor.name, (method.name, effect.rule), tuple(parts), seed if effect.masked else None


def _first_rows(tensor: TensorPlan) -> tuple[tuple[Values, ...], dict[int, str]]:
    """Return the numbers of a tensor's first row, and for each input whose rows differ what tells them."""
    own, rows = list(tensor.own), {}
    for index, added in enumerate(tensor.added):
        if added is None:
            continue
        weights = own[index]["weight"] + added.astype(np.float64)
        own[index] = {**own[index], "weight": float(weights[0])}
        further = np.round(weights - weights[0], DECIMALS) + 0.0
        if further.any():
            rows[index] = xxhash.xxh3_128_hexdigest(further.tobytes())
    return tuple(own), rows
