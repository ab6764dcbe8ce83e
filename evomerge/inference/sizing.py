"""How much one forward pass, and one store of keys and values, may hold: sized from machine and model.

Measured on two cores: a CPU is fastest where what a layer makes of a pass's tokens stays in its caches, a
fifth faster than with passes of 4,096 tokens; at that size padding and overhead are small too. A GPU gains
up to some 65,000.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from typing import Any

import torch

_CPU_MOST_TOKENS, _CPU_ENOUGH_TOKENS = 2048, 512
_CPU_CACHE = 2**22  # bytes of one layer's widest states
_MOST_TOKENS_ELSEWHERE = 65536
_FEWEST_TOKENS = 256
_SHARE = 4
"""Passes, keys and values, and what a backward pass keeps may each take this part of the memory."""
_MOST_TOKENS_WITH_GRADIENTS = {
    "cpu": 512
}  # a sixth faster than 4096: what is kept stays in the cache
_FEWEST_KEPT = 512  # tokens; where fewer fit, computing layers again costs less than small passes
_MOST_CACHE = {"cpu": 2**30}
_UNKNOWN_MEMORY = 2**33


@dataclass(frozen=True)
class TokenBytes:
    """What one token takes."""

    forward: int  # while a forward pass is in one of its layers
    cached: int  # as keys and values of all layers
    kept: int  # for a backward pass, in one layer
    entering: int  # what enters all layers, where they are recomputed in the backward pass
    layers: int  # number of layers
    inner: int  # numbers of one layer's widest states

    def of(self, share: float) -> TokenBytes:
        """Return what one token takes where only a share of the layers is."""
        layers = math.ceil(self.layers * share)
        cached, entering = (each * layers // self.layers for each in (self.cached, self.entering))
        return replace(self, cached=cached, entering=entering, layers=layers)


def token_bytes(config: Any, dtype: torch.dtype) -> TokenBytes:  # noqa: ANN401 - any model's configuration
    """Return what one token takes; sizes that the configuration does not state are a 7B model's."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    hidden = int(getattr(text, "hidden_size", 4096))
    inner = int(getattr(text, "intermediate_size", None) or 4 * hidden)
    layers = int(getattr(text, "num_hidden_layers", 32))
    heads = int(getattr(text, "num_attention_heads", 32))
    key_heads = int(getattr(text, "num_key_value_heads", None) or heads)
    width = int(getattr(text, "head_dim", None) or hidden // heads)
    return TokenBytes(
        # Residual, normed, query, key, value, attention's output and their float32 copies; gate, up, product.
        forward=dtype.itemsize * (12 * hidden + 4 * inner),
        cached=2 * layers * key_heads * width * dtype.itemsize,
        # What a layer's products read, and the float32 copies of its two norms.
        kept=dtype.itemsize * (10 * hidden + 4 * inner) + 4 * 4 * hidden,
        entering=layers * dtype.itemsize * hidden,
        layers=layers,
        inner=inner,
    )


@dataclass(frozen=True)
class Room:
    """How many tokens passes may hold."""

    batch: int  # most of one forward pass
    cached: int  # most whose keys and values are kept at once
    gradients: int  # most of the forward passes behind one backward pass
    gradient_pass: int  # most of one of those
    recompute: bool  # whether layers are recomputed in backward passes, as too few would fit else


def room_of(
    config: Any,  # noqa: ANN401 - any model's configuration
    dtype: torch.dtype,
    device: torch.device,
    *,
    memory: int | None = None,
    batch_tokens: int | None = None,
    share: float = 1.0,
) -> Room:
    """Size passes.

    Args:
        config: The model's configuration.
        dtype: Of the passes.
        device: Where they run.
        memory: Bytes that passes may take; None: `scoring_memory`.
        batch_tokens: Most tokens of one forward pass; None: a power of two that fits and pays.
        share: Of the layers, how many the device with most of them has, where several have some.
    """
    token = token_bytes(config, dtype).of(share)
    room = (scoring_memory(device) if memory is None else memory) // _SHARE
    batch = batch_tokens or _batch_tokens(token, room, dtype, device)
    kept = room // (token.layers * token.kept)
    recompute = kept < min(batch, _FEWEST_KEPT)
    gradients = min(kept, batch)  # as large as forward passes, where what they keep fits
    if recompute:
        gradients = max(_FEWEST_TOKENS, min(room // (token.entering + token.kept), batch))
    return Room(
        batch=batch,
        cached=max(1, min(room, _MOST_CACHE.get(device.type, room)) // token.cached),
        gradients=gradients,
        gradient_pass=min(gradients, _MOST_TOKENS_WITH_GRADIENTS.get(device.type, gradients)),
        recompute=recompute,
    )


def scoring_memory(device: torch.device) -> int:
    """Return the bytes that passes may take where nothing else is said: half of what the device has.

    Of a GPU half of what it has left.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) // 2
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, OSError, ValueError):  # not on this system
        return _UNKNOWN_MEMORY // 2


def _batch_tokens(token: TokenBytes, room: int, dtype: torch.dtype, device: torch.device) -> int:
    most = min(room // token.forward, _MOST_TOKENS_ELSEWHERE)
    if device.type == "cpu":
        cached = _CPU_CACHE // (token.inner * dtype.itemsize)
        most = min(most, max(_CPU_ENOUGH_TOKENS, min(cached, _CPU_MOST_TOKENS)))
    return max(_FEWEST_TOKENS, 1 << (most.bit_length() - 1) if most else 0)
