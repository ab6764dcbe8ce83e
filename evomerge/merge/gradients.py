"""Gradients of the live weights → gradients of a loss by the numbers of the merge that made them.

A merged tensor is a function of the merge's numbers, so the gradient of a loss by one of them is the inner
product of the loss's gradient by the tensor with the tensor's derivative by the number. Each gradient is
reduced to its inner products as soon as it is there, and freed: of all gradients only those of the layer
that is being differentiated take memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from operator import add
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from evomerge.candidate import Merge
from evomerge.candidate.merge import Own, tuples
from evomerge.candidate.tables import Array
from evomerge.errors import MergeError
from evomerge.merge.engine import MergeRun
from evomerge.merge.methods import NumberGradients
from evomerge.merge.plan import Place, TensorPlan

_MAPPED_BLOCK = 30 * 2**20


@dataclass(frozen=True)
class TensorGradients:
    """The gradient of a loss by the numbers behind one tensor.

    Attributes:
        place: Where the numbers stand, as `TensorPlan.place`.
        models: The inputs.
        own: Parameter → one gradient an input; 0 for an input that has no such number (the base).
        shared: Parameter → gradient, for numbers that hold for all inputs.
        rows: By the weight of each row, float64 `[inputs, rows]` on the CPU; None: not wanted.
    """

    place: Place
    models: tuple[str, ...]
    own: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    shared: Mapping[str, float] = field(default_factory=dict)
    rows: torch.Tensor | None = None


class GradientTape:
    """Adds up the gradients of all losses that are differentiated while it is open.

    Args:
        run: What the weights were computed by.
        by_row: Take those by the weights of single rows, too.

    Raises:
        MergeError: The method has no gradients, or none by row.
    """

    def __init__(self, run: MergeRun, *, by_row: bool = False) -> None:
        method = run.plan.method
        if method.gradients is None:
            raise MergeError(f"{method.name} has no gradients; choose a sampler that needs none")
        if by_row and not method.rows:
            raise MergeError(f"{method.name} has no gradients by row; search weights by group only")
        self.run, self._of, self._by_row = run, method.gradients, by_row
        self._found: dict[str, TensorGradients] = {}

    def gradients(self) -> Mapping[str, TensorGradients]:
        """Return the gradients by tensor; a tensor that no loss depended on is left out."""
        return dict(self._found)

    def by_number(self, merge: Merge) -> dict[str, Own]:
        """Return the gradients by the numbers of the merge that was planned, summed over tensors.

        Returns:
            Parameter → [groups][components][experts], the last of length 1 for a parameter that is shared.
        """
        places = max(1, len(merge.groups)), len(merge.components) + 1
        tables: dict[str, np.ndarray[Any, np.dtype[np.float64]]] = {}
        for one in self._found.values():
            by_expert = {
                name: [values[one.models.index(model)] for model in merge.experts]
                for name, values in one.own.items()
            }
            for name, values in (by_expert | {n: [v] for n, v in one.shared.items()}).items():
                tables.setdefault(name, np.zeros((*places, len(values))))[one.place] += values
        return {name: tuples(table.tolist()) for name, table in tables.items()}

    def by_row(self, merge: Merge) -> dict[str, Array]:
        """Return the gradients by the weight of each row, tensor by tensor: float32 `[experts, rows]`.

        Those of a tensor sum to what it has in `by_number`.
        """
        return {
            name: one.rows[[one.models.index(model) for model in merge.experts]].float().numpy()
            for name, one in self._found.items()
            if one.rows is not None
        }

    def add(self, piece: TensorPlan, gradient: torch.Tensor) -> None:
        """Reduce the gradient of a loss by one merged tensor.

        Args:
            piece: How the tensor came to be.
            gradient: Shaped as the tensor, any floating dtype and device.
        """
        inputs = self.run.inputs(piece, by_row=self._by_row)
        with torch.no_grad():
            new = self._of(inputs, gradient.to(inputs.device, inputs.dtype))
        self._found[piece.name] = _added(self._found.get(piece.name), piece, new)


@contextmanager
def recorded(tape: GradientTape, targets: Mapping[str, torch.Tensor]) -> Iterator[GradientTape]:
    """Let a tape see every gradient that backward passes bring meanwhile; then no parameter has any.

    A parameter that stands under two names (a tied head) has one gradient, which goes to that of its
    tensors that was written last.

    Args:
        tape: What sees them.
        targets: Name of a merged tensor → where it was written; only parameters have gradients.
    """
    _keep_freed_memory()
    pieces = {
        id(targets[piece.name]): (targets[piece.name], piece)
        for piece in tape.run.plan.tensors
        if isinstance(targets[piece.name], nn.Parameter)
    }
    with ExitStack() as stack:
        for parameter, piece in pieces.values():
            stack.callback(_let_go, parameter)
            parameter.requires_grad_(True)
            handle = parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                partial(_reduce, tape, piece)
            )
            stack.callback(handle.remove)
        yield tape


@contextmanager
def recomputed(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Keep only what enters each of these layers, and recompute the rest in the backward pass.

    The same gradients from less memory and one more forward pass; nothing may be cached meanwhile. Unlike
    transformers' own switch, it needs no training mode, which would turn dropout on.
    """
    with ExitStack() as stack:
        for layer in layers:
            plain = layer.forward
            if "forward" in vars(layer):
                stack.callback(vars(layer).__setitem__, "forward", plain)
            else:
                stack.callback(vars(layer).__delitem__, "forward")
            vars(layer)["forward"] = partial(
                checkpoint, plain, use_reentrant=False, preserve_rng_state=False
            )
        yield


@cache
def _keep_freed_memory() -> None:
    """Let the allocator keep what a backward pass frees, for the next one.

    Otherwise glibc gives it back to the system, and at every step takes it again page by page, a twentieth of
    a small model's step. A block that is mapped by itself and freed raises both of glibc's thresholds
    (mallopt(3): at most 32 MiB); elsewhere nothing happens.
    """
    torch.empty(_MAPPED_BLOCK, dtype=torch.uint8)


def _reduce(tape: GradientTape, piece: TensorPlan, parameter: torch.Tensor) -> None:
    gradient, parameter.grad = parameter.grad, None
    if gradient is not None:
        tape.add(piece, gradient)


def _let_go(parameter: torch.Tensor) -> None:
    parameter.requires_grad_(False)
    parameter.grad = None


def _added(
    before: TensorGradients | None, piece: TensorPlan, new: NumberGradients
) -> TensorGradients:
    rows = None if new.rows is None else new.rows.cpu()
    if before is None:
        return TensorGradients(piece.place, piece.models, new.own, new.shared, rows)
    own = {name: tuple(map(add, before.own[name], values)) for name, values in new.own.items()}
    shared = {name: before.shared[name] + value for name, value in new.shared.items()}
    if rows is not None and before.rows is not None:
        rows += before.rows
    return TensorGradients(piece.place, piece.models, own, shared, rows)
