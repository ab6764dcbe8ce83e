"""The one engine: a plan → merged tensors, for the live model and for the disk alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from evomerge.candidate import Merge, Recipe
from evomerge.errors import ModelError
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.devices import torch_dtype
from evomerge.merge.plan import Plan, TensorPlan, plan_merge
from evomerge.merge.resident import Memory, ResidentInputs
from evomerge.merge.vocabulary import OutputVocabulary


def merged_tensors(
    source: Merge | Recipe,
    checkpoints: Mapping[str, Checkpoint],
    *,
    device: torch.device | str = "cpu",
    dtype: str | None = None,
    memory: Memory | None = None,
) -> Iterator[tuple[str, torch.Tensor]]:
    """Merge tensor by tensor.

    Inputs are taken in the precision in which they are stored, the maths is done in float32 (float64 for
    a float64 result) and rounded once, to the result's dtype.

    Args:
        source: What to merge.
        checkpoints: Every model that it names, by that name; of one family (`check_family`).
        device: Where the maths is done.
        dtype: Of the result; None: the plan's, or the base's own.
        memory: What is kept between merges; None: nothing.

    Yields:
        Name and tensor: embeddings, layers, final norm and head. No tensor shares its memory with an
        input or with another tensor, also where it equals one (a layer that is repeated, weights of 0).

    Raises:
        RecipeError: The recipe is wrong.
        MergeError: The maths has no answer.
    """
    plan = plan_merge(source, checkpoints)
    if plan.vocabulary is not None:
        vocabulary = OutputVocabulary.build(plan.vocabulary, checkpoints)
        checkpoints = vocabulary.seen(plan, checkpoints)
    return run_plan(plan, checkpoints, device=device, dtype=dtype, memory=memory)


def run_plan(
    plan: Plan,
    checkpoints: Mapping[str, Checkpoint],
    *,
    device: torch.device | str = "cpu",
    dtype: str | None = None,
    memory: Memory | None = None,
) -> Iterator[tuple[str, torch.Tensor]]:
    """Compute a plan; arguments, results and errors are those of `merged_tensors`."""
    memory = memory or Memory()
    device = torch.device(device)
    with torch.no_grad():
        for piece in plan.tensors:
            out = out_dtype(piece, plan, checkpoints, dtype)
            if not out.is_floating_point:
                yield piece.name, _copied(piece, checkpoints).to(device, copy=True)
                continue
            inputs = inputs_of(piece, plan, checkpoints, out=out, device=device, memory=memory)
            merged = plan.method.merge(inputs)
            yield piece.name, merged.to(out, copy=inputs.lends(merged))


def inputs_of(
    piece: TensorPlan,
    plan: Plan,
    checkpoints: Mapping[str, Checkpoint],
    *,
    out: torch.dtype,
    device: torch.device,
    memory: Memory,
) -> ResidentInputs:
    """Return what a merge method sees of one tensor.

    Args:
        piece: How the tensor comes to be; of floating-point numbers.
        plan: To which it belongs.
        checkpoints: Every model by its name.
        out: What `out_dtype` says of it.
        device: Where the maths is done.
        memory: What is kept between merges.
    """
    return ResidentInputs(
        name=piece.name,
        sources=tuple(
            (checkpoints[model], tensor, plan.models.index(model))
            for model, tensor in zip(piece.models, piece.tensors, strict=True)
        ),
        base=piece.base,
        shared=piece.shared,
        own=piece.own,
        seed=plan.seed,
        memory=memory,
        device=device,
        dtype=torch.float64 if out == torch.float64 else torch.float32,
    )


def out_dtype(
    piece: TensorPlan, plan: Plan, checkpoints: Mapping[str, Checkpoint], dtype: str | None
) -> torch.dtype:
    """Return the dtype of one merged tensor; what is stored as whole numbers stays so."""
    source = piece.base if piece.base is not None else 0
    stored = checkpoints[piece.models[source]].tensors[piece.tensors[source]].dtype
    if not stored.is_floating_point:
        return stored
    name = dtype or plan.dtype
    return torch_dtype(name) if name is not None else stored


def _copied(piece: TensorPlan, checkpoints: Mapping[str, Checkpoint]) -> torch.Tensor:
    """A buffer of whole numbers cannot be averaged: it is copied where all inputs agree."""
    tensors = [
        checkpoints[model].tensor(name)
        for model, name in zip(piece.models, piece.tensors, strict=True)
    ]
    for model, tensor in zip(piece.models, tensors, strict=True):
        if not torch.equal(tensor, tensors[0]):
            raise ModelError(
                f"{piece.name} holds whole numbers that differ from {piece.models[0]}'s; such tensors "
                "cannot be merged",
                file=model,
            )
    return tensors[0]
