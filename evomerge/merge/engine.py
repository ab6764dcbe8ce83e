"""The one engine: a plan → merged tensors, for the live model and for the disk alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from typing import Any

import torch

from evomerge.candidate import Merge, Recipe
from evomerge.errors import ModelError, RecipeError
from evomerge.merge import fused
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.devices import torch_dtype
from evomerge.merge.family import is_finite
from evomerge.merge.files import TensorHeader
from evomerge.merge.fused_gpu import Launches
from evomerge.merge.memory import Memory
from evomerge.merge.methods.core_space import CORE_SPACE
from evomerge.merge.methods.method import Sum
from evomerge.merge.plan import MergePlan, TensorPlan, plan_merge
from evomerge.merge.resident import ResidentInputs
from evomerge.merge.statistics import open_statistics
from evomerge.merge.vocabulary import OutputVocabulary


class MergeRun:
    """A plan over open models, each tensor computed on one device.

    Inputs are taken in the precision in which they are stored, the maths is done in float32 (float64 for
    a float64 result) and rounded once, to the result's dtype.

    Args:
        plan: What to merge.
        checkpoints: Every model by its name, as the merge reads them (`OpenModels.seen`).
        device: Where the maths is done; or what says so of each merged tensor, by its name.
        dtype: Of the result; None: the plan's, or the base's own.
        memory: What is kept between merges, or that on each device; None: nothing.
        differentiated: Whether gradients are to follow, which may find there what the merge computed.

    Raises:
        RecipeError: Coefficients have another number of rows than their tensor, the statistics file is
            missing or does not fit the experts, or `core_space` is asked for of experts that are no adapters.
    """

    def __init__(
        self,
        plan: MergePlan,
        checkpoints: Mapping[str, Checkpoint],
        *,
        device: torch.device | str | Callable[[str], torch.device] = "cpu",
        dtype: str | None = None,
        memory: Memory | Mapping[torch.device, Memory] | None = None,
        differentiated: bool = False,
    ) -> None:
        self.plan = plan
        self._checkpoints, self._dtype = checkpoints, dtype
        self._device_of = (
            _always(torch.device(device)) if isinstance(device, str | torch.device) else device
        )
        self._memory = memory or Memory()
        self._merge = object() if differentiated else None
        self._inputs: dict[str, Callable[..., ResidentInputs]] = {}
        self._sums: dict[Hashable, Sum | None] = {}
        self._position = {model: position for position, model in enumerate(plan.models)}
        self._expert = {model: place for place, model in enumerate(plan.experts)}
        self._statistics = None if plan.statistics is None else open_statistics(plan.statistics)
        if self._statistics is not None:
            self._statistics.check(plan.experts, checkpoints)
        read = (id(checkpoints[model]) for model in plan.models)
        self._read = *read, id(self._statistics), plan.models, plan.experts
        for piece in plan.tensors:
            if piece.added:
                self._check_rows(piece)
            if piece.shared.get(CORE_SPACE):
                self._check_adapters(piece)

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Merge tensor by tensor: embeddings, layers, final norm and head.

        No tensor shares its memory with an input or with another tensor, also where it equals one (a layer
        that is repeated, weights of 0).

        Raises:
            MergeError: The maths has no answer.
            ModelError: A buffer of whole numbers differs between models.
        """
        for piece in self.plan.tensors:
            yield piece.name, self.merged(piece)

    @torch.no_grad()
    def in_turn(self, check: Callable[[TensorPlan], None]) -> Iterator[tuple[str, torch.Tensor]]:
        """Merge tensor by tensor, as `tensors` does, for who is done with one before the next.

        A tensor may share its memory with an input, which nobody writes into then, and with the next one:
        the process takes no more at the last than at the first.

        Args:
            check: Raises where an input of a tensor holds NaN or infinity. It is called before the tensor is
                merged; after a sum that shows them all, only where there are some in it.
        """
        most = max((self.header(piece).nbytes for piece in self.plan.tensors), default=0)
        room = torch.empty(most, dtype=torch.uint8, device=self._device_of(""))
        for piece in self.plan.tensors:
            header = self.header(piece)
            if not header.dtype.is_floating_point:
                yield piece.name, self._copied(piece)
                continue
            made = room[: header.nbytes].view(header.dtype).view(header.shape)
            found = self._sum(piece)
            shows = found is not None and found[1].shows_all(len(piece.models))
            if not shows:
                check(piece)
            fits = found is not None and fused.write(*found, made, header.dtype)
            if shows and not (fits and is_finite(made)):
                check(piece)
            yield piece.name, made if fits else self._by_method(piece, shared=True)

    @torch.no_grad()
    def merged(self, piece: TensorPlan, *, shared: bool = False) -> torch.Tensor:
        """Merge one tensor of the plan. Raises as `tensors` does.

        Args:
            piece: Which.
            shared: Whether it may share its memory with an input that it equals; nobody writes into it then.
        """
        out, device = self.out_dtype(piece), self._device_of(piece.name)
        if not out.is_floating_point:
            return self._copied(piece).to(device, copy=not shared)
        made = torch.empty(self.header(piece).shape, dtype=out, device=device)
        return made if self._is_fused(piece, made) else self._by_method(piece, shared=shared)

    def write(self, targets: Iterable[tuple[TensorPlan, torch.Tensor]]) -> None:
        """Merge tensors of the plan into memory that is there. Raises as `tensors` does.

        Args:
            targets: Each with where it goes to: of its shape, any dtype and device; no gradient is required.
        """
        launches = Launches()
        for piece, target in targets:
            if not self.out_dtype(piece).is_floating_point:
                target.copy_(self._copied(piece))
            elif not self._is_fused(piece, target, launches):
                target.copy_(self._by_method(piece, shared=True))
        launches.finish()

    def _by_method(self, piece: TensorPlan, *, shared: bool) -> torch.Tensor:
        inputs = self.inputs(piece)
        merged = self.plan.method.merge(inputs)
        return merged.to(self.out_dtype(piece), copy=not shared and inputs.lends(merged))

    def _is_fused(
        self, piece: TensorPlan, target: torch.Tensor, launches: Launches | None = None
    ) -> bool:
        """Merge a tensor in one pass, if that is possible; at the latest with these launches."""
        found = self._sum(piece)
        return found is not None and fused.write(*found, target, self.out_dtype(piece), launches)

    def _sum(self, piece: TensorPlan) -> tuple[ResidentInputs, Sum] | None:
        """Return inputs and sum of a tensor that may be merged in one pass; None: it may not be."""
        find = self.plan.method.total
        if find is None or not self._pays:
            return None
        inputs = self.inputs(piece)
        numbers = id(piece.shared), id(piece.own), inputs.shape, piece.added and piece.name
        if numbers not in self._sums:  # the same of all tensors of one shape with the same numbers
            self._sums[numbers] = find(inputs)
        total = self._sums[numbers]
        if total is None or (total.elect and self._merge is not None):
            return None  # what a merge leaves for its gradients is made by the method
        return inputs, total

    @cached_property
    def _pays(self) -> bool:
        """Whether the model is large enough for one pass over each tensor."""
        sizes = (math.prod(self._stored(piece).shape) for piece in self.plan.tensors)
        return fused.pays(self._device_of(""), sizes)

    def inputs(self, piece: TensorPlan, *, by_row: bool = False) -> ResidentInputs:
        """Return what a merge method sees of one tensor of floating-point numbers.

        Args:
            piece: How the tensor comes to be.
            by_row: Whether gradients by the weights of single rows are wanted, too.
        """
        if piece.name not in self._inputs:
            self._inputs[piece.name] = self._opened(piece)
        return self._inputs[piece.name](by_row=by_row)

    def _opened(self, piece: TensorPlan) -> Callable[..., ResidentInputs]:
        of_merge: dict[str, Any] = {
            "shared": piece.shared,
            "own": piece.own,
            "added": piece.added,
            "seed": self.plan.seed,
            "merge": self._merge,
        }
        device = self._device_of(piece.name)
        memory = self._memory if isinstance(self._memory, Memory) else self._memory[device]
        dtype = torch.float64 if self.out_dtype(piece) == torch.float64 else torch.float32
        read = self._read, piece.models, piece.tensors, piece.base, device, dtype
        known = memory.inputs.get(piece.name)
        if known is None or known.read != read:
            known = memory.inputs[piece.name] = ResidentInputs(
                name=piece.name,
                sources=tuple(
                    (self._checkpoints[model], tensor, self._position[model])
                    for model, tensor in zip(piece.models, piece.tensors, strict=True)
                ),
                base=piece.base,
                statistics=self._statistics,
                experts=tuple(map(self._expert.get, piece.models)),
                memory=memory,
                device=device,
                dtype=dtype,
                **of_merge,
            )
            known.read = read
        return partial(known.again, **of_merge)

    def out_dtype(self, piece: TensorPlan) -> torch.dtype:
        """Return the dtype of one merged tensor; what is stored as whole numbers stays so."""
        stored = self._stored(piece).dtype
        name = self._dtype or self.plan.dtype
        return torch_dtype(name) if name is not None and stored.is_floating_point else stored

    def header(self, piece: TensorPlan) -> TensorHeader:
        """Return shape and dtype of one merged tensor."""
        return TensorHeader(self._stored(piece).shape, self.out_dtype(piece))

    def _stored(self, piece: TensorPlan) -> TensorHeader:
        source = piece.base if piece.base is not None else 0
        return self._checkpoints[piece.models[source]].tensors[piece.tensors[source]]

    def _check_rows(self, piece: TensorPlan) -> None:
        shape = self.header(piece).shape
        rows = shape[0] if shape else 1
        for added in piece.added:
            if added is not None and len(added) not in (1, rows):
                raise RecipeError(
                    f"{piece.name}: found coefficients of {len(added)} rows, expected {rows}, or 1 for "
                    "all of them",
                    field="coefficients",
                )

    def _check_adapters(self, piece: TensorPlan) -> None:
        """Check that all inputs but the base are LoRA adapters on it."""
        base = None if piece.base is None else piece.models[piece.base]
        for model in piece.models:
            if base is None or self._checkpoints[model].folder != self._checkpoints[base].folder:
                found = "merged without one" if base is None else f"none on {base}"
                raise RecipeError(
                    f"core_space merges LoRA adapters on a base_model; {model} is {found}",
                    field=f"parameters.{CORE_SPACE}",
                )

    def _copied(self, piece: TensorPlan) -> torch.Tensor:
        """A buffer of whole numbers cannot be averaged: it is copied where all inputs agree."""
        first, *others = (
            self._checkpoints[model].tensor(name)
            for model, name in zip(piece.models, piece.tensors, strict=True)
        )
        for model, tensor in zip(piece.models[1:], others, strict=True):
            if not torch.equal(tensor, first):
                raise ModelError(
                    f"{piece.name} holds whole numbers that differ from {piece.models[0]}'s; such tensors "
                    "cannot be merged",
                    file=model,
                )
        return first


def _always(device: torch.device) -> Callable[[str], torch.device]:
    return lambda _: device


def merged_tensors(
    source: Merge | Recipe,
    checkpoints: Mapping[str, Checkpoint],
    *,
    device: torch.device | str = "cpu",
    dtype: str | None = None,
    memory: Memory | None = None,
) -> Iterator[tuple[str, torch.Tensor]]:
    """Merge models of one family (`check_family`) tensor by tensor; arguments and results as of `MergeRun`.

    Raises:
        RecipeError: The recipe is wrong.
        MergeError: The maths has no answer.
    """
    plan = plan_merge(source, checkpoints)
    if plan.vocabulary is not None:
        vocabulary = OutputVocabulary.build(plan.vocabulary, checkpoints)
        checkpoints = vocabulary.seen(plan, checkpoints)
    return MergeRun(plan, checkpoints, device=device, dtype=dtype, memory=memory).tensors()
