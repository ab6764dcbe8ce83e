"""What a LoRA adapter (a PEFT folder) does to a model's tensors, tensor by tensor.

What PEFT computes with the adapter, without loading the model; in float32, rounded nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch

from evomerge.errors import ModelError

_T = TypeVar("_T")


@dataclass(frozen=True)
class Pair:
    """The two factors of one tensor's update, `scale · B A`.

    Attributes:
        a: `[rank, in]`; of an embedding `[rank, tokens]`.
        b: `[out, rank]`; of an embedding `[hidden, rank]`.
        scale: alpha / rank, or alpha / sqrt(rank) with rslora.
        transposed: The weight is stored `[in, out]` (Conv1D) or is an embedding; None: as the shape of the
            weight says, and where it is square as the adapter's other weights say.
    """

    a: torch.Tensor
    b: torch.Tensor
    scale: float
    transposed: bool | None

    @property
    def shape(self) -> tuple[int, int]:
        """Of the weight that the pair is added to, unless it is transposed."""
        return self.b.shape[0], self.a.shape[1]

    def delta(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Return the update in float32, shaped as the weight is stored."""
        product = self.b.float() @ self.a.float()
        turned = self.transposed if self.transposed is not None else self.shape != shape
        return (product.T if turned else product) * self.scale

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Tell whether the update has the shape of the weight."""
        straight, turned = self.shape == shape, self.shape[::-1] == shape
        return (
            straight or turned if self.transposed is None else (straight, turned)[self.transposed]
        )

    def equals(self, other: Pair) -> bool:
        """Tell whether two pairs are the same update of an embedding and of its tied head."""
        if self.scale != other.scale:
            return False
        same = torch.equal(self.a, other.a) and torch.equal(self.b, other.b)
        return same or (torch.equal(self.a, other.b.T) and torch.equal(self.b, other.a.T))


@dataclass(frozen=True)
class Rows:
    """Rows of an embedding that were trained in full (`trainable_token_indices`).

    Attributes:
        indices: Which rows.
        values: What they are, `[len(indices), hidden]`.
    """

    indices: tuple[int, ...]
    values: torch.Tensor

    def equals(self, other: Rows) -> bool:
        """Tell whether both set the same rows to the same values."""
        return self.indices == other.indices and torch.equal(self.values, other.values)


@dataclass(frozen=True)
class Change:
    """What an adapter does to one tensor: another weight, some rows of it replaced, plus an update.

    Attributes:
        weight: Takes the place of the stored one; None: the stored one.
        trained: `weight` was trained in full (`modules_to_save`, biases); otherwise it is a copy of what the
            adapter was trained on.
        pair: Low-rank update.
        rows: Rows that were trained in full.
    """

    weight: torch.Tensor | None = None
    trained: bool = False
    pair: Pair | None = None
    rows: Rows | None = None

    @property
    def is_own(self) -> bool:
        """Whether the tensor was trained; a mere copy was not, and rows go to a tied head, too."""
        return self.trained or self.pair is not None

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the changed tensor; more rows than before after new tokens."""
        return stored if self.weight is None else tuple(self.weight.shape)

    def applied(self, stored: torch.Tensor) -> torch.Tensor:
        """Return the changed tensor, in float32."""
        weight = (stored if self.weight is None else self.weight).float()
        if self.rows is not None:
            places = torch.tensor(self.rows.indices)
            weight = weight.index_copy(0, places, self.rows.values.to(weight))
        if self.pair is not None:
            weight = weight + self.pair.delta(tuple(weight.shape))
        return weight

    def stored_as(self, *, transposed: bool) -> Change:
        """Settle how a square weight is stored, which its shape does not tell."""
        if self.pair is None or self.pair.transposed is not None:
            return self
        if self.pair.shape[0] != self.pair.shape[1]:
            return self
        return replace(self, pair=replace(self.pair, transposed=transposed))

    def holds(self, weight: torch.Tensor | None) -> bool:
        """Tell whether this weight is in the place of the stored one; None: none is."""
        return _both(self.weight, weight, same)

    def equals(self, other: Change) -> bool:
        """Tell whether two changes make the same of one weight, under its two names."""
        return self.holds(other.weight) and (
            _both(self.pair, other.pair, Pair.equals) and _both(self.rows, other.rows, Rows.equals)
        )

    def check(
        self, name: str, shape: tuple[int, ...], folder: Path, *, resizable: bool = False
    ) -> None:
        """Check that the change fits a tensor.

        Args:
            name: Of the tensor.
            shape: As the model stores it.
            folder: Of the adapter, for the message.
            resizable: It may have another number of rows than the model's.

        Raises:
            ModelError: It does not.
        """
        found = self.shape(shape)
        if found != shape and not (resizable and found[1:] == shape[1:]):
            raise _unlike(name, found, shape, folder)
        if self.pair is not None and not self.pair.fits(found):
            raise _unlike(name, self.pair.shape, found, folder)
        if self.rows is not None:
            if self.rows.values.shape[1:] != found[1:]:
                raise _unlike(name, tuple(self.rows.values.shape), found, folder)
            if max(self.rows.indices, default=0) >= found[0]:
                raise ModelError(
                    f"trains row {max(self.rows.indices)} of {name}, which has {found[0]} rows",
                    file=folder,
                )


@dataclass(frozen=True)
class Adapter:
    """What an adapter does to a model's tensors.

    Attributes:
        folder: Where it was read from.
        changes: Tensor → what becomes of it.
        keeps_tie: A tied head was trained as one with its embeddings (`ensure_weight_tying`).
    """

    folder: Path
    changes: Mapping[str, Change]
    keeps_tie: bool = False


def _both(one: _T | None, other: _T | None, equal: Callable[[_T, _T], bool]) -> bool:
    if one is None or other is None:
        return one is other
    return equal(one, other)


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Tell whether two tensors hold the same numbers, whatever the dtype."""
    return one.shape == other.shape and torch.equal(one.float(), other.float())


def _unlike(
    name: str, found: tuple[int, ...], expected: tuple[int, ...], folder: Path
) -> ModelError:
    return ModelError(
        f"adapts {name} of shape {list(found)}, the model's is {list(expected)}", file=folder
    )
