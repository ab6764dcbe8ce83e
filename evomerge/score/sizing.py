"""How much one forward pass, and one store of keys and values, may hold: sized from machine and model.

Measured on two cores: a CPU is fastest where what a layer makes of a pass's tokens stays in its caches, a
fifth faster than with passes of 4,096 tokens; at that size padding and overhead are small too. A GPU gains
up to some 65,000.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch

_CPU_MOST_TOKENS, _CPU_ENOUGH_TOKENS = 2048, 512
_CPU_CACHE = 2**22  # bytes of one layer's widest states
_MOST_TOKENS_ELSEWHERE = 65536
_FEWEST_TOKENS = 256
_PASSES_SHARE = (
    8  # a pass may take this part of the memory, so that several workers have room beside it
)
_CACHE_SHARE = 8
_GRADIENTS_SHARE = 8
_MOST_TOKENS_WITH_GRADIENTS = {
    "cpu": 512
}  # a sixth faster than 4096: what is kept stays in the cache
_FEWEST_KEPT = 512  # tokens; where fewer fit, computing layers anew costs less than small passes
_MOST_CACHE = {"cpu": 2**30}
_UNKNOWN_MEMORY = 2**33


def batch_tokens_of(config: Any, dtype: torch.dtype, device: torch.device) -> int:  # noqa: ANN401
    """Return the most tokens of one forward pass: a power of two.

    Args:
        config: The model's configuration; sizes that it does not state are taken to be those of a
            model of 7 billion parameters.
        dtype: Of the forward passes.
        device: Where they run.
    """
    text = _text(config)
    hidden = int(getattr(text, "hidden_size", 4096))
    inner = int(getattr(text, "intermediate_size", None) or 4 * hidden)
    # Residual, normed, query, key, value, attention's output and their float32 copies; gate, up, product.
    token = dtype.itemsize * (12 * hidden + 4 * inner)
    fits = _memory(device) // _PASSES_SHARE // token
    most = min(fits, _MOST_TOKENS_ELSEWHERE)
    if device.type == "cpu":
        cached = _CPU_CACHE // (inner * dtype.itemsize)
        most = min(fits, max(_CPU_ENOUGH_TOKENS, min(cached, _CPU_MOST_TOKENS)))
    return max(_FEWEST_TOKENS, 1 << (int(most).bit_length() - 1) if most else 0)


@dataclass(frozen=True)
class GradientRoom:
    """How much one backward pass may hold.

    Attributes:
        tokens: Most tokens of the forward passes behind it.
        pass_tokens: Most tokens of one of those.
        recompute: Whether layers are to be computed anew in the backward pass, as too few tokens would fit
            otherwise.
    """

    tokens: int
    pass_tokens: int
    recompute: bool


def gradient_room(
    config: Any,  # noqa: ANN401 - any model's configuration
    dtype: torch.dtype,
    device: torch.device,
    batch_tokens: int,
) -> GradientRoom:
    """Size backward passes: as large as forward passes where what they keep fits into memory.

    Args:
        config: As for `batch_tokens_of`.
        dtype: Of the passes.
        device: Where they run.
        batch_tokens: Most tokens of one forward pass.
    """
    text = _text(config)
    hidden = int(getattr(text, "hidden_size", 4096))
    inner = int(getattr(text, "intermediate_size", None) or 4 * hidden)
    layers = int(getattr(text, "num_hidden_layers", 32))
    # Of each layer: what its products read, and the float32 copies of its two norms.
    layer = dtype.itemsize * (10 * hidden + 4 * inner) + 4 * 4 * hidden
    room = _memory(device) // _GRADIENTS_SHARE
    kept = room // (layers * layer)
    if kept >= min(batch_tokens, _FEWEST_KEPT):
        tokens = min(kept, batch_tokens)
    else:
        entering = room // (layers * dtype.itemsize * hidden + layer)
        tokens = max(_FEWEST_TOKENS, min(entering, batch_tokens))
    most = min(tokens, _MOST_TOKENS_WITH_GRADIENTS.get(device.type, tokens))
    return GradientRoom(tokens, most, recompute=kept < min(batch_tokens, _FEWEST_KEPT))


def cache_tokens_of(config: Any, dtype: torch.dtype, device: torch.device) -> int:  # noqa: ANN401
    """Return how many tokens' keys and values may be kept at once; arguments as above."""
    text = _text(config)
    layers = int(getattr(text, "num_hidden_layers", 32))
    heads = int(getattr(text, "num_attention_heads", 32))
    key_heads = int(getattr(text, "num_key_value_heads", None) or heads)
    width = getattr(text, "head_dim", None) or int(getattr(text, "hidden_size", 4096)) // heads
    token = 2 * layers * key_heads * int(width) * dtype.itemsize
    room = _memory(device) // _CACHE_SHARE
    return max(1, min(room, _MOST_CACHE.get(device.type, room)) // token)


def _text(config: Any) -> Any:  # noqa: ANN401 - any model's configuration
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def _memory(device: torch.device) -> int:
    """Bytes that the device has, or, of a GPU, has left."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not on this system
        return _UNKNOWN_MEMORY
