"""What enters a module's linear layers: the mean square of each column, and all second moments.

Of the whole module at once, or layer by layer while the layers' weights change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from evomerge.errors import MergeError

BATCH_TOKENS = 2048
"""Of one pass."""
STATE = "hidden_states"
"""What transformers calls the first argument of a layer."""


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
    device = next(module.parameters()).device
    with _noting(linear_layers(module), full) as sums:
        for batch in _batches(sequences, batch_tokens):
            body(input_ids=torch.tensor(batch, device=device), use_cache=False)
    return {name: one.means() for name, one in sums.items() if one.count}


def linear_layers(module: nn.Module) -> dict[str, nn.Linear]:
    """Return the linear layers of a module by their names."""
    return {name: one for name, one in module.named_modules() if isinstance(one, nn.Linear)}


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


class LayerInputs:
    """What enters a stack of layers, one after the other: each may be changed before it is passed.

    Held are the states between two layers, on the CPU, and what else the module gives its layers (masks,
    positions), which may not depend on their weights.

    Args:
        module: A causal language model of transformers, in evaluation mode.
        layers: The stack.
        sequences: Tokens; none is empty.
        batch_tokens: As of `second_moments`.

    Raises:
        MergeError: The module does not call each layer once and in order, one has no linear layers, or
            tokens enter linear layers outside them.
    """

    @torch.inference_mode()
    def __init__(
        self,
        module: nn.Module,
        layers: Sequence[nn.Module],
        sequences: Sequence[Sequence[int]],
        *,
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        linear = linear_layers(module)
        parts = [{id(each) for each in one.modules()} for one in layers]
        self._linear = [{n: one for n, one in linear.items() if id(one) in own} for own in parts]
        self._calls: list[list[_Call]] = []
        self._states: list[Tensor] = []
        body: Any = getattr(module, "base_model", module)
        device = next(module.parameters()).device
        outside = {n: one for n, one in linear.items() if not any(n in own for own in self._linear)}
        with _noting(outside, False) as entered:
            for batch in _batches(sequences, batch_tokens):
                with self._noting_calls(layers):
                    body(input_ids=torch.tensor(batch, device=device), use_cache=False)
        faults = [f"{name} is outside them" for name, one in entered.items() if one.count]
        if not all(self._linear):
            faults.append("there is one without linear layers")
        if any([call.layer for call in own] != [*layers] for own in self._calls):
            faults.append("they are called in another order")
        if faults:
            raise MergeError(
                f"merged_features reads a model's layers one after the other, and {faults[0]}"
            )

    @torch.inference_mode()
    def moments(self, number: int) -> dict[str, Tensor]:
        """Return the second moments of what enters the next layer's linear ones, by their weights' names.

        Args:
            number: Of that layer.
        """
        with _noting(self._linear[number], True) as sums:
            for _ in self._passed(number):
                pass
        means = {f"{name}.weight": one.means().products for name, one in sums.items() if one.count}
        return {name: one for name, one in means.items() if one is not None}

    @torch.inference_mode()
    def advance(self, number: int) -> None:
        """Pass the next layer.

        Args:
            number: Of that layer.
        """
        self._states = list(self._passed(number))

    def _passed(self, number: int) -> Iterator[Tensor]:
        for state, calls in zip(self._states, self._calls, strict=True):
            yield calls[number].repeated(state).cpu()

    @contextmanager
    def _noting_calls(self, layers: Sequence[nn.Module]) -> Iterator[None]:
        calls: list[_Call] = []

        def hook(layer: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            state: Tensor = args[0] if args else named[STATE]
            if not calls:
                self._states.append(state.cpu())
            others = {name: one for name, one in named.items() if name != STATE}
            calls.append(_Call(layer, args[1:], others, state.device))

        with ExitStack() as handles:
            for layer in layers:
                one = layer.register_forward_pre_hook(hook, with_kwargs=True)
                handles.callback(one.remove)
            yield
        self._calls.append(calls)


@dataclass(frozen=True)
class _Call:
    """How a module called a layer; the state apart, which is the first argument."""

    layer: nn.Module
    args: tuple[Any, ...]
    named: Mapping[str, Any]
    device: torch.device

    def repeated(self, state: Tensor) -> Tensor:
        found = self.layer(state.to(self.device), *self.args, **self.named)
        made: Tensor = found[0] if isinstance(found, tuple) else found
        return made


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
def _noting(layers: Mapping[str, nn.Linear], full: bool) -> Iterator[dict[str, _Sums]]:
    """Add up what enters each layer; layers that follow each other on one tensor share its products."""
    sums = {name: _Sums(layer, full) for name, layer in layers.items()}
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
        yield sums


def _batches(sequences: Sequence[Sequence[int]], tokens: int) -> Iterator[list[Sequence[int]]]:
    for length, alike in groupby(sorted(sequences, key=len), len):
        found, at_once = list(alike), max(1, tokens // length)
        for start in range(0, len(found), at_once):
            yield [list(each) for each in found[start : start + at_once]]
