"""When two merges are one model: by the numbers that hold for each tensor, however they are written."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from evomerge.candidate import Merge, Recipe
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.methods.method import SUM, Effect, rounded
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
    effect = plan.method.effect
    written = (plan.dtype, repr(plan.vocabulary), plan.chat_template)
    merged = tuple(
        _of_tensor(
            plan.method.name, tensor, effect(tensor.shared, tensor.own, tensor.base), plan.seed
        )
        for tensor in plan.tensors
    )
    return written, merged


def _of_tensor(method: str, tensor: TensorPlan, effect: Effect, seed: int) -> Hashable:
    places = list(zip(tensor.models, tensor.tensors, strict=True))
    if effect.rule == SUM:
        factors: dict[tuple[str, str], float] = {}
        for index, factor in effect.parts.items():
            assert isinstance(factor, float)  # of a sum
            factors[places[index]] = factors.get(places[index], 0.0) + factor
        near = {place: rounded(factor) for place, factor in factors.items()}
        return tensor.name, SUM, frozenset((p, factor) for p, factor in near.items() if factor)
    parts = sorted(((places[index], part) for index, part in effect.parts.items()), key=repr)
    return tensor.name, (method, effect.rule), tuple(parts), seed if effect.masked else None
