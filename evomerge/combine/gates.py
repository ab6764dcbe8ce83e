"""Gates in closed form: ridge regressions on what each layer's router reads, layer after layer.

DUME (2603.29765): W = (XᵀX + λI)⁻¹XᵀY, its columns normalised. X are the inputs of the router in the
mixture itself: behind the norm that follows attention, with the gates of all layers before in place. Y says
how good each expert is for the token's item.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evomerge.candidate.gates import Gates
from evomerge.errors import MergeError

RIDGE = 1e-2
"""Relative to the mean square of a feature."""


@dataclass(frozen=True)
class Lesson:
    """A prompt, and how good each expert is for it.

    Attributes:
        tokens: Of the prompt; one at least.
        targets: One number an expert.
        weight: Of the prompt in the regression.
    """

    tokens: tuple[int, ...]
    targets: tuple[float, ...]
    weight: float = 1.0


class _Enough(Exception):  # noqa: N818 - ends a pass, no error
    pass


@torch.no_grad()
def fit_gates(
    module: nn.Module,
    lessons: Sequence[Lesson],
    *,
    temperature: float = 1.0,
    ridge: float = RIDGE,
    batch_tokens: int = 4096,
) -> Gates:
    """Fit the gates of a mixture, and leave them in it.

    Args:
        module: The mixture, in evaluation mode.
        lessons: What it learns from.
        temperature: Of the softmax over the experts; gates are divided by it.
        ridge: λ, relative to the mean square of a feature.
        batch_tokens: Most tokens of one pass, padding included.

    Raises:
        MergeError: The inputs of a router are not finite.
    """
    batches = [_Batch(module, some) for some in _batched(lessons, batch_tokens)]
    gates, accuracy = {}, []
    for number, layer in enumerate(module.get_submodule("model.layers").children()):
        gate: Any = layer.get_submodule("mlp.gate")
        hidden = gate.weight.shape[1]
        gram = torch.zeros(hidden, hidden, dtype=torch.float64, device=gate.weight.device)
        cross = torch.zeros(hidden, len(gate.weight), dtype=torch.float64, device=gram.device)
        for batch in batches:
            inputs = batch.inputs(layer).double()
            weighted = inputs * batch.weights[:, None]
            gram += weighted.T @ inputs
            cross += weighted.T @ batch.targets
        solved = solve(gram, cross, ridge)
        gate.weight.copy_(solved.T / temperature)
        right = total = 0.0
        for batch in batches:
            inputs = batch.advance(layer)
            chosen = (inputs.double() @ solved).argmax(dim=1)
            best = batch.targets.amax(dim=1)
            hit = batch.targets.gather(1, chosen[:, None])[:, 0] >= best
            right += float(batch.weights @ hit.double())
            total += float(batch.weights.sum())
        gates[number] = gate.weight.float().cpu().numpy().copy()
        accuracy.append(right / total)
    return Gates.of(gates, accuracy=np.array([accuracy], dtype=np.float32))


def solve(gram: Tensor, cross: Tensor, ridge: float = RIDGE) -> Tensor:
    """Solve the ridge regression, and normalise its columns.

    Args:
        gram: XᵀX, float64 `[d, d]`.
        cross: XᵀY, float64 `[d, experts]`.
        ridge: λ, relative to the mean of the diagonal of `gram`.

    Returns:
        `[d, experts]`; a column of zeros stays one.

    Raises:
        MergeError: `gram` is not finite.
    """
    if not bool(gram.isfinite().all()):
        raise MergeError("the inputs of a router are NaN or infinite")
    scale = float(gram.diagonal().mean()) or 1.0
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    found = torch.linalg.solve(gram + ridge * scale * eye, cross)
    norms = found.norm(dim=0, keepdim=True)
    normalised: Tensor = found / norms.masked_fill(norms == 0, 1.0)
    return normalised


class _Batch:
    """Prompts on their way through the layers: the states before the next one."""

    def __init__(self, module: nn.Module, lessons: Sequence[Lesson]) -> None:
        device = next(module.parameters()).device
        width = max(len(one.tokens) for one in lessons)
        tokens = torch.zeros(len(lessons), width, dtype=torch.int64)
        self._real = torch.zeros(len(lessons), width, dtype=torch.bool)
        weights = torch.zeros(len(lessons), width, dtype=torch.float64)
        for row, one in enumerate(lessons):
            length = len(one.tokens)
            tokens[row, :length] = torch.tensor(one.tokens)
            self._real[row, :length] = True
            weights[row, :length] = one.weight / length
        targets = torch.tensor([one.targets for one in lessons], dtype=torch.float64)
        self._real = self._real.to(device)
        self.weights = weights.to(device)[self._real]
        self.targets = targets.to(device)[:, None].expand(-1, width, -1)[self._real]
        self._states, self._options = _first_states(module, tokens.to(device))

    def inputs(self, layer: nn.Module) -> Tensor:
        """Return what a layer's router reads, `[tokens, d]`, without padding."""
        with _reading(layer, stop=True) as read, suppress(_Enough):
            layer(self._states, **self._options)
        return read[0][self._real]

    def advance(self, layer: nn.Module) -> Tensor:
        """Go through a layer; return what its router read, as `inputs`."""
        with _reading(layer, stop=False) as read:
            found = layer(self._states, **self._options)
        self._states = found[0] if isinstance(found, tuple) else found
        return read[0][self._real]


@contextmanager
def _reading(layer: nn.Module, *, stop: bool) -> Iterator[list[Tensor]]:
    read: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        read.append(inputs[0])
        if stop:
            raise _Enough

    handle = layer.get_submodule("mlp").register_forward_pre_hook(keep)
    try:
        yield read
    finally:
        handle.remove()


def _first_states(module: nn.Module, tokens: Tensor) -> tuple[Tensor, dict[str, Any]]:
    """Return what the first layer is called with."""
    found: list[tuple[Tensor, dict[str, Any]]] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...], options: dict[str, Any]) -> None:
        found.append((inputs[0], options))
        raise _Enough

    first = module.get_submodule("model.layers.0")
    handle = first.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        module(input_ids=tokens, use_cache=False)
    except _Enough:
        pass
    finally:
        handle.remove()
    return found[0]


def _batched(lessons: Sequence[Lesson], batch_tokens: int) -> Iterator[list[Lesson]]:
    """Prompts of like lengths together; causal attention keeps padding behind them out of their states."""
    batch: list[Lesson] = []
    for one in sorted(lessons, key=lambda one: len(one.tokens)):
        if batch and len(one.tokens) * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch
