"""A module's hidden states, as the mean over the tokens of each sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from evomerge.errors import ModelError
from evomerge.inference.cache import PreambleCache
from evomerge.inference.preambles import begin_alike

BATCH_TOKENS = 2048
"""Of one pass: the states of all layers are held at once."""


@torch.inference_mode()
def mean_states(
    module: nn.Module,
    sequences: Sequence[Sequence[int]],
    layers: Sequence[int] | None = None,
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> Tensor:
    """Return the mean hidden state of each of n sequences in chosen layers, [n, layers, d], float32.

    Padding is left out; what many sequences begin with is read once, and no layer behind the last one that
    is asked for is computed. The states are those that `output_hidden_states` gives in transformers: 0 the
    embeddings, L the last layer's, behind the final norm.

    Args:
        module: A causal language model of transformers, in evaluation mode.
        sequences: Tokens; none is empty.
        layers: Which states, from 0 to L; None: all L + 1.
        batch_tokens: Most tokens of one pass, padding included; a longer sequence stands alone.

    Raises:
        ModelError: The module's layers are not one list.
    """
    body = getattr(module, "base_model", module)  # without the output head
    blocks = _blocks(body)
    wanted = range(len(blocks) + 1) if layers is None else layers
    distinct = list(dict.fromkeys(map(tuple, sequences)))
    found: dict[tuple[int, ...], Tensor] = {}
    for alike in begin_alike([list(each[:-1]) for each in distinct]):
        read = _Reader(body, blocks, wanted, distinct[alike.members[0]][: alike.shared])
        members = sorted((distinct[index] for index in alike.members), key=len)
        while members:
            width = len(members[-1]) - alike.shared
            chunk = members[-max(1, batch_tokens // width) :]
            del members[-len(chunk) :]
            found |= zip(chunk, read([each[alike.shared :] for each in chunk]), strict=True)
    return torch.stack([found[tuple(each)] for each in sequences])


def distances(states: Sequence[Tensor]) -> Tensor:
    """Return how far models' states are apart, as a share of their length, [layers, models, models], float64.

    Σ ‖h_i - h_j‖ / Σ ½ (‖h_i‖ + ‖h_j‖), each sum over the sequences: 0 of equal states, 2 at most.

    Args:
        states: Of each model, on the same sequences, as `mean_states` returns them.
    """
    lengths = torch.stack([one.norm(dim=2).double().sum(0) for one in states])  # [models, layers]
    apart = torch.stack(
        [
            torch.stack([(one - other).norm(dim=2).double().sum(0) for other in states])
            for one in states
        ]
    )
    return (apart / ((lengths[:, None] + lengths) / 2)).permute(2, 0, 1)


class _Enough(Exception):  # noqa: N818 - it ends a pass
    """All that is wanted was seen."""


class _Reader:
    """Reads sequences that begin alike; what they begin with, `preamble`, is read at once."""

    def __init__(
        self,
        body: nn.Module,
        blocks: Sequence[nn.Module],
        layers: Sequence[int],
        preamble: Sequence[int],
    ) -> None:
        self._body, self._blocks, self._layers = body, blocks, layers
        self._device = next(body.parameters()).device
        self._cache: PreambleCache | None = None
        self._length = len(preamble)
        self._sums: Tensor | float = 0.0
        if preamble:
            self._cache = PreambleCache()
            self._sums = self._states([preamble]).sum(dim=1)
            self._cache.close(self._length)

    def __call__(self, rests: Sequence[Sequence[int]]) -> Tensor:
        """Return the means over preamble and rest, [n, layers, d]."""
        lengths = torch.tensor([len(each) for each in rests], device=self._device)
        states = self._states(rests)
        there = torch.arange(states.shape[1], device=self._device) < lengths[:, None]
        sums = (states * there[:, :, None, None]).sum(dim=1) + self._sums
        return (sums / (lengths + self._length)[:, None, None]).cpu()

    def _states(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Return the states of rows that follow the preamble, [n, tokens, layers, d], float32."""
        width = max(map(len, rows))
        tokens = torch.tensor([[*each, *[0] * (width - len(each))] for each in rows])
        seen: dict[int, Tensor] = {}
        with _noting(self._blocks, max(self._layers), seen), suppress(_Enough):
            seen[len(self._blocks)] = self._body(
                input_ids=tokens.to(self._device),
                past_key_values=self._cache,
                use_cache=self._cache is not None,
            ).last_hidden_state
        return torch.stack(
            [seen[layer].to(self._device, torch.float32) for layer in self._layers], dim=2
        )


@contextmanager
def _noting(blocks: Sequence[nn.Module], last: int, seen: dict[int, Tensor]) -> Iterator[None]:
    """Note what enters each block up to `last`, where the pass ends."""

    def note(layer: int) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            seen[layer] = inputs[0] if inputs else named["hidden_states"]
            if layer == last:
                raise _Enough

        return hook

    with ExitStack() as handles:
        for layer, block in enumerate(blocks[: last + 1]):
            handle = block.register_forward_pre_hook(note(layer), with_kwargs=True)
            handles.callback(handle.remove)
        yield


def _blocks(body: nn.Module) -> list[nn.Module]:
    """Return the layers of a model of transformers, in their order."""
    config: Any = getattr(body, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    count = getattr(text, "num_hidden_layers", None)
    decoder = getattr(body, "get_decoder", None)  # a tower of as many layers is not meant
    part: nn.Module = decoder() if callable(decoder) else body
    lists = [each for each in part.modules() if isinstance(each, nn.ModuleList)]
    found = [list(each) for each in lists if len(each) == count]
    if not found:
        raise ModelError(
            f"{type(body).__name__} has no one list of its {count} layers, whose states a router reads"
        )
    return found[0]
