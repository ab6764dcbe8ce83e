"""Attention to what many rows begin with, once for all of them, beside each row's own tokens.

Softmax attention to two sets of keys is the mean of the attentions to each, weighted by the sums of their
exponentials (Juravsky et al. 2024, Hydragen; "cascade attention" in FlashInfer). So the keys and values of
a preamble are neither copied to every row nor read again for every row. Without gradients only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from evomerge.inference.cache import PreambleCache

_NAME = "evomerge_cascade"
_ALIGNED = 8  # entries to which the kernel for CUDA wants the rows of a mask padded
_OVERRIDDEN = "sdpa"  # eager attention may do more than scaled dot products (soft-capping, sinks)


@dataclass(frozen=True)
class Share:
    """A preamble and the rows of a pass that begin with it."""

    preamble: PreambleCache  # its keys and values, read before
    rows: Tensor | None  # `[n]`, int64; None: all rows


@contextmanager
def cascading(module: nn.Module) -> Iterator[None]:
    """Let a module of transformers attend to the `preambles` that its forward is called with."""
    configs: list[Any] = [getattr(each, "config", None) for each in passes_of(module)]
    for config in configs:
        usual = getattr(config, "_attn_implementation", None)
        if usual != _OVERRIDDEN:
            raise ValueError(f"attention is {usual}, not {_OVERRIDDEN}")
    for config in configs:  # read at every pass; transformers' setter walks all modules
        config._attn_implementation = _NAME
    try:
        yield
    finally:
        for config in configs:
            config._attn_implementation = _OVERRIDDEN


def passes_of(module: nn.Module) -> list[nn.Module]:
    """Return the models whose passes make up a module's: those of a mixed ensemble, or itself."""
    return list(getattr(module, "mixed", None) or [module])


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    preambles: Sequence[Share],
    **_: object,
) -> tuple[Tensor, None]:
    """Attend to each row's own keys and to its preamble's, in transformers' interface of attention.

    Args:
        module: The layer's attention; its `layer_idx` says which keys of the preambles are meant.
        query: `[B, H, L, D]`.
        key: `[B, K, S, D]`, with H a multiple of K.
        value: As `key`.
        attention_mask: `[B or 1, 1, L, S]`, added to the scores.
        scaling: Of the scores; None: 1 / √D.
        preambles: Which rows begin with what; a row with one preamble at most.

    Returns:
        `[B, L, H, D]`, and no weights.
    """
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    found, weight = _own(query, key, value, attention_mask, scaling)
    for share in preambles:
        rows = None if share.rows is None else share.rows.to(query.device)
        part = query if rows is None else query[rows]
        other, other_weight = _shared(part, *share.preamble.states(layer), scaling)
        if rows is None:
            found = _mean(found, weight, other, other_weight)
        else:
            mean = _mean(found[rows], weight[rows], other, other_weight)
            found = found.index_copy(0, rows, mean)
    return found.transpose(1, 2).contiguous(), None


def _own(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None
) -> tuple[Tensor, Tensor]:
    """Return `[B, H, L, D]` and the logarithm of the sum of exponentials, `[B, H, L]`."""
    rows, heads, length, width = query.shape
    per_key = heads // key.shape[1]
    if per_key > 1 and length == 1:  # one mask for all heads: they may stand as if they were tokens
        packed = query.reshape(rows, heads // per_key, per_key, width)
        found, weight = _flash(packed, key, value, mask, scaling)
        return found.reshape(query.shape), weight.reshape(rows, heads, 1)
    if per_key > 1:
        key, value = key.repeat_interleave(per_key, 1), value.repeat_interleave(per_key, 1)
    return _flash(query, key, value, mask, scaling)


def _shared(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None
) -> tuple[Tensor, Tensor]:
    """As `_own`, where all rows see all of one sequence, `[1, K, P, D]`: they stand as its tokens."""
    rows, heads, length, width = query.shape
    flat = query.transpose(0, 1).reshape(1, key.shape[1], -1, width)
    found, weight = _flash(flat, key, value, None, scaling)
    return (
        found.reshape(heads, rows, length, width).transpose(0, 1),
        weight.reshape(heads, rows, length).transpose(0, 1),
    )


def _flash(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None
) -> tuple[Tensor, Tensor]:
    if query.device.type == "cuda":
        return _efficient(query, key, value, mask, scaling)
    found, weight = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, attn_mask=mask, scale=scaling
    )
    return found, weight


def _efficient(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None
) -> tuple[Tensor, Tensor]:
    """As `_flash` on CUDA, by the one kernel of PyTorch's that takes a mask and returns the weights."""
    bias = None
    if mask is not None:
        columns = key.shape[2]
        padded = nn.functional.pad(mask, (0, -columns % _ALIGNED))
        bias = padded[..., :columns].expand(*query.shape[:3], columns)
    found, weight, _, _ = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, True, scale=scaling
    )
    return found, weight[..., : query.shape[2]]  # which are padded, too


def _mean(found: Tensor, weight: Tensor, other: Tensor, other_weight: Tensor) -> Tensor:
    part = torch.sigmoid(other_weight - weight)[..., None]
    return torch.lerp(found, other, part.to(found.dtype))


AttentionInterface.register(_NAME, attend)
