"""A module's hidden states, as the mean over the tokens of each sequence."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

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

    Padding is left out; what many sequences begin with is read once. The states are those that
    `output_hidden_states` gives in transformers: 0 the embeddings, L the last layer's, behind the final norm.

    Args:
        module: A causal language model of transformers, in evaluation mode.
        sequences: Tokens; none is empty.
        layers: Which states, from 0 to L, or from the end; None: all L + 1.
        batch_tokens: Most tokens of one pass, padding included; a longer sequence stands alone.
    """
    body = getattr(module, "base_model", module)  # without the output head
    distinct = list(dict.fromkeys(map(tuple, sequences)))
    found: dict[tuple[int, ...], Tensor] = {}
    for alike in begin_alike([list(each[:-1]) for each in distinct]):
        read = _Reader(body, layers, distinct[alike.members[0]][: alike.shared])
        members = sorted((distinct[index] for index in alike.members), key=len)
        while members:
            width = len(members[-1]) - alike.shared
            chunk = members[-max(1, batch_tokens // width) :]
            del members[-len(chunk) :]
            found |= zip(chunk, read([each[alike.shared :] for each in chunk]), strict=True)
    return torch.stack([found[tuple(each)] for each in sequences])


class _Reader:
    """Reads sequences that begin alike; what they begin with, `preamble`, is read at once."""

    def __init__(
        self, body: nn.Module, layers: Sequence[int] | None, preamble: Sequence[int]
    ) -> None:
        self._body, self._layers, self._device = body, layers, next(body.parameters()).device
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
        found = self._body(
            input_ids=tokens.to(self._device),
            past_key_values=self._cache,
            use_cache=self._cache is not None,
            output_hidden_states=True,
        ).hidden_states
        chosen = found if self._layers is None else [found[layer] for layer in self._layers]
        return torch.stack(tuple(chosen), dim=2).float()
