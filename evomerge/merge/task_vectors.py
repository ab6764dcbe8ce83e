"""How task vectors of a family lie to each other, layer by layer, read in blocks of one tensor at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch

from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.family import merged_names
from evomerge.merge.layout import Layout

BLOCK = 1 << 18
"""Numbers of each tensor that are read at once."""
Matrix = tuple[tuple[float | None, ...], ...]
"""`[experts][experts]`; None where an expert has no task vector there."""


@dataclass(frozen=True)
class TaskVectorConflicts:
    """Task vectors of some experts in one part of the model, two by two.

    Attributes:
        part: `embeddings`, `layer 3`, `final norm and head`; `all`.
        norms: Of each expert's.
        cosines: Of the angle between two.
        opposed: Share of the numbers that both change, which they change in opposite directions; 0.5 of
            vectors that have nothing to do with each other.
    """

    part: str
    norms: tuple[float, ...]
    cosines: Matrix
    opposed: Matrix


def task_vectors(
    base: Checkpoint, experts: Sequence[Checkpoint], left_out: Collection[str | None] = ()
) -> tuple[TaskVectorConflicts, ...]:
    """Compare task vectors in each layer, before and behind the layers, and all in all.

    Differences are float32, sums float64. A file's tensors are read block by block; of those that a LoRA
    adapter changes, one at a time of each expert is held.

    Args:
        base: The common ancestor.
        experts: Two or more, LoRA adapters on models among them.
        left_out: Tensors that cannot be compared, as of unlike vocabularies.
    """
    layout = Layout.of(base)
    first = set(layout.first)
    whole = _Sums.of(len(experts))
    parts: dict[str, _Sums] = {"embeddings": _Sums.of(len(experts))}
    parts |= {f"layer {layer}": _Sums.of(len(experts)) for layer in range(layout.num_layers)}
    parts["final norm and head"] = _Sums.of(len(experts))
    for name in (name for name in merged_names(base) if name not in left_out):
        layer = layout.layer_of(name)
        outside = "embeddings" if name in first else "final norm and head"
        part = parts[outside if layer is None else f"layer {layer}"]
        for block in _blocks(name, base, experts):
            part.add(block)
    for sums in parts.values():
        whole.take(sums)
    parts["all"] = whole
    return tuple(sums.found(part) for part, sums in parts.items() if sums.count)


def _blocks(name: str, base: Checkpoint, experts: Sequence[Checkpoint]) -> Iterator[torch.Tensor]:
    """Give the task vectors of a tensor, `[experts, numbers]`, block after block."""
    if not base.tensors[name].dtype.is_floating_point:
        return
    common, *others = (one.tensor(name).reshape(-1) for one in (base, *experts))
    for start in range(0, common.numel(), BLOCK):
        ancestor = common[start : start + BLOCK].float()
        yield torch.stack([one[start : start + BLOCK].float() - ancestor for one in others])


@dataclass
class _Sums:
    products: torch.Tensor  # [experts, experts], float64
    both: torch.Tensor  # how many numbers both change
    opposed: torch.Tensor  # in opposite directions
    count: int = 0

    @classmethod
    def of(cls, experts: int) -> _Sums:
        zeros = [torch.zeros(experts, experts, dtype=torch.float64) for _ in range(3)]
        return cls(zeros[0], zeros[1], zeros[2])

    def add(self, block: torch.Tensor) -> None:
        numbers, signs = block.double(), block.sign()
        self.products += numbers @ numbers.T
        both = (signs.abs() @ signs.abs().T).double()  # whole numbers below 2**24
        self.both += both
        self.opposed += (both - (signs @ signs.T).double()) / 2
        self.count += block.shape[1]

    def take(self, other: _Sums) -> None:
        self.products += other.products
        self.both += other.both
        self.opposed += other.opposed
        self.count += other.count

    def found(self, part: str) -> TaskVectorConflicts:
        norms = self.products.diagonal().sqrt()
        return TaskVectorConflicts(
            part,
            tuple(norms.tolist()),
            _matrix(self.products / (norms[:, None] * norms)),
            _matrix(self.opposed / self.both),
        )


def _matrix(values: torch.Tensor) -> Matrix:
    return tuple(
        tuple(float(value) if value.isfinite() else None for value in row) for row in values
    )
