"""Forward passes that compute only the logits that are read.

A hook before the output embedding keeps the positions that are read; the module's own forward does the
rest, so whatever it does to logits (Gemma's soft-capping, Cohere's scaling) is done to ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

_PROBE_LENGTH = 6


class Forward:
    """A module's logits at chosen positions.

    Args:
        module: A causal language model with the interface of transformers: `forward(input_ids,
            attention_mask, position_ids, past_key_values, use_cache)` returns an object with `logits`
            `[B, L, V]`. `get_output_embeddings` is used where it is there.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        find = getattr(module, "get_output_embeddings", None)
        head = find() if callable(find) else None
        self._head: nn.Module | None = head if isinstance(head, nn.Module) else None
        first = next(module.parameters())
        self.device, self.dtype = first.device, first.dtype
        self.window = _window(getattr(module, "config", None))
        self.vocabulary, self.takes_masks = self._probe()

    def __call__(
        self,
        tokens: Tensor,
        rows: Tensor,
        *,
        visible: Tensor | None = None,
        attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
        cache: Any = None,  # noqa: ANN401 - a transformers Cache
    ) -> Tensor:
        """Run the module.

        Args:
            tokens: `[B, L]`, int64.
            rows: `[R]`: which of the B · L positions to return, in rising order.
            visible: `[B, 1, L, K]`, bool: which of K tokens each sees; needs `takes_masks`.
            attention_mask: `[B, K]`: 1 for real tokens, 0 for padding; where `visible` is None.
            positions: `[B, L]`; None: from 0.
            cache: Keys and values of earlier tokens, in transformers' interface.

        Returns:
            Logits `[R, V]` in the module's dtype.
        """
        arguments: dict[str, Any] = {"input_ids": tokens, "use_cache": cache is not None}
        if visible is not None:
            arguments["attention_mask"] = additive(visible, self.dtype)
        elif attention_mask is not None:
            arguments["attention_mask"] = attention_mask
        if positions is not None:
            arguments["position_ids"] = positions
        if cache is not None:
            arguments["past_key_values"] = cache
        if self._head is None:
            return _picked(self._logits(arguments), rows)
        picked = False

        def keep_rows(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            nonlocal picked
            picked = True
            return (_picked(inputs[0], rows)[None], *inputs[1:])

        handle = self._head.register_forward_pre_hook(keep_rows)
        try:
            logits = self._logits(arguments)
        finally:
            handle.remove()
        return logits[0] if picked else _picked(logits, rows)

    def _logits(self, arguments: Mapping[str, Any]) -> Tensor:
        logits: Tensor = self.module(**arguments).logits
        return logits

    @torch.no_grad()
    def _probe(self) -> tuple[int, bool]:
        """The number of logits, and whether a full mask and explicit positions are honoured.

        The latter is tried out on a few tokens.

        Attention with fixed biases (ALiBi), recurrence and the like do not; readings then stand alone.
        """
        tokens = torch.arange(1, 2 * _PROBE_LENGTH + 1, device=self.device)
        shared, left, right = (
            tokens[:2],
            tokens[2:_PROBE_LENGTH],
            tokens[_PROBE_LENGTH : 2 * _PROBE_LENGTH - 2],
        )
        alone = torch.stack([torch.cat([shared, left]), torch.cat([shared, right])])
        packed = torch.cat([shared, left, right])[None]
        branch = torch.tensor([0] * 2 + [1] * len(left) + [2] * len(right), device=self.device)
        size = packed.shape[1]
        visible = torch.ones(size, size, dtype=torch.bool, device=self.device).tril()
        visible &= (branch[:, None] == branch[None]) | (branch[None] == 0)
        positions = torch.cat([torch.arange(2 + len(left)), torch.arange(2, 2 + len(right))])
        last = 2 + len(left)
        expected = self(alone, torch.tensor([last - 1, 2 * last - 1], device=self.device)).float()
        vocabulary = expected.shape[1]
        try:
            found = self(
                packed,
                torch.tensor([last - 1, size - 1], device=self.device),
                visible=visible[None, None],
                positions=positions[None].to(self.device),
            ).float()
        except (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError):
            return vocabulary, False
        scale = float(expected.abs().max())
        tolerance = 1e-4 if self.dtype == torch.float32 else 5e-2
        matters = float((expected[0] - expected[1]).abs().max()) > 2 * tolerance * scale
        same = float((expected - found).abs().max()) <= tolerance * scale
        return vocabulary, matters and same


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Return 0 where `visible`, and the lowest number of `dtype` elsewhere."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(
        ~visible, torch.finfo(dtype).min
    )


def _picked(states: Tensor, rows: Tensor) -> Tensor:
    return states.reshape(-1, states.shape[-1]).index_select(0, rows)


def _window(config: Any) -> int | None:  # noqa: ANN401 - any model's configuration
    """The shortest sliding window of a model; None: every layer sees everything."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    kinds = getattr(text, "layer_types", None)
    window = getattr(text, "sliding_window", None)
    if window is None or (kinds is not None and "sliding_attention" not in kinds):
        return None
    return int(window) if getattr(text, "use_sliding_window", True) else None
