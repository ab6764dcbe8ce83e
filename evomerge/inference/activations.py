"""What enters a module's linear layers: the mean square of each column, and all second moments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

BATCH_TOKENS = 2048
"""Of one pass."""


@dataclass(frozen=True)
class Moments:
    """Second moments of the vectors that entered a linear layer.

    Attributes:
        count: Of the vectors: one a token, of an expert of a mixture one a token that it got.
        squares: Mean square of each column, float64 `[columns]`, on the CPU.
        products: Mean of x xT, float32 `[columns, columns]`, on the CPU; None where it was not asked for.
    """

    count: int
    squares: Tensor
    products: Tensor | None = None


@torch.inference_mode()
def second_moments(
    module: nn.Module,
    sequences: Sequence[Sequence[int]],
    *,
    full: bool = False,
    batch_tokens: int = BATCH_TOKENS,
) -> Mapping[str, Moments]:
    """Return the second moments of what enters each linear layer, the output head's apart: name → moments.

    Sequences of one length are read together, so that there is no padding; layers that no token enters have
    none.

    Args:
        module: A causal language model of transformers, in evaluation mode.
        sequences: Tokens; none is empty.
        full: Also the products of all pairs of columns, which take columns² numbers a layer.
        batch_tokens: Most tokens of one pass; a longer sequence stands alone.
    """
    body: Any = getattr(module, "base_model", module)  # without the output head
    layers = {name: one for name, one in module.named_modules() if isinstance(one, nn.Linear)}
    device = next(module.parameters()).device
    sums = {name: _Sums(layer, full) for name, layer in layers.items()}
    with _noting(layers, sums):
        for batch in _batches(sequences, batch_tokens):
            body(input_ids=torch.tensor(batch, device=device), use_cache=False)
    return {name: one.means() for name, one in sums.items() if one.count}


def moments_by_tensor(
    module: nn.Module, sequences: Sequence[Sequence[int]], *, full: bool = False
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return `second_moments` by the layers' weights, as files of statistics hold them, float32.

    Returns:
        Root mean squares, `[1, columns]`; and where they are asked for means of x xT, `[columns, columns]`.
    """
    found = second_moments(module, sequences, full=full)
    squares = {f"{name}.weight": one.squares.sqrt().float()[None] for name, one in found.items()}
    products = {name: one.products for name, one in found.items()}
    full_ones = {f"{name}.weight": one for name, one in products.items() if one is not None}
    return squares, full_ones


class _Sums:
    def __init__(self, layer: nn.Linear, full: bool) -> None:
        columns, device = layer.in_features, layer.weight.device
        fine = torch.float32 if device.type == "mps" else torch.float64
        self.count, self._full = 0, full
        self._squares = torch.zeros(columns, dtype=fine, device=device)
        self._products: Tensor | None = None

    def add(self, vectors: Tensor, products: Tensor | None) -> None:
        self.count += len(vectors)
        self._squares += vectors.square().sum(0, dtype=self._squares.dtype)
        if products is not None:
            self._products = (
                products.clone() if self._products is None else self._products + products
            )

    def means(self) -> Moments:
        products = None if self._products is None else (self._products / self.count).cpu()
        return Moments(self.count, self._squares.cpu().double() / self.count, products)

    def products_of(self, vectors: Tensor) -> Tensor | None:
        return vectors.T @ vectors if self._full else None


@contextmanager
def _noting(layers: Mapping[str, nn.Linear], sums: Mapping[str, _Sums]) -> Iterator[None]:
    """Add up what enters each layer; layers that follow each other on one tensor share its products."""
    last: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def note(own: _Sums) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            if not last or last[0][0] is not inputs[0]:
                vectors = inputs[0].reshape(-1, inputs[0].shape[-1]).float()
                last[:] = [(inputs[0], vectors, own.products_of(vectors))]
            own.add(*last[0][1:])

        return hook

    with ExitStack() as handles:
        for name, layer in layers.items():
            handles.callback(layer.register_forward_pre_hook(note(sums[name])).remove)
        yield


def _batches(sequences: Sequence[Sequence[int]], tokens: int) -> Iterator[list[Sequence[int]]]:
    for length, alike in groupby(sorted(sequences, key=len), len):
        found, at_once = list(alike), max(1, tokens // length)
        for start in range(0, len(found), at_once):
            yield [list(each) for each in found[start : start + at_once]]
