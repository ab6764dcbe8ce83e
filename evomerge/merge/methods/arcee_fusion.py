"""Arcee Fusion: take over what an expert changed most (mergekit 0.1.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evomerge.merge.methods.method import Inputs, Method

if TYPE_CHECKING:
    import torch

ADDED = 1e-8  # to every probability (mergekit)


def arcee_fusion(inputs: Inputs) -> torch.Tensor:
    """Return the expert's entries where its importance is an outlier, the base's elsewhere.

    Importance is |task vector| times the KL divergence of the expert's row from the base's, both as softmax
    along the last axis; an outlier is at least median + 1.5 · interquartile range. The quantiles are those of
    all entries, of large tensors too, where mergekit draws a million entries without a seed.
    """
    assert inputs.base is not None  # needs_base
    base, expert = inputs.tensor(inputs.base), inputs.tensor(inputs.others[0])
    if not base.numel():
        return base
    delta = expert - base
    importance = delta.abs().mul_(_divergence(expert, base))
    kept = importance.ge_(_threshold(importance.view(-1).clone()))
    return delta.mul_(kept).add_(base)


def _divergence(expert: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """Return KL(expert ‖ base) of each row, of length 1 along the last axis, computed in float64."""
    import torch

    from evomerge.merge.methods.tensors import CHUNK, summable

    width = base.shape[-1] if base.ndim else 1
    rows = (summable(each).reshape(-1, width) for each in (expert, base))
    pieces = zip(*(torch.split(each, max(1, CHUNK // width)) for each in rows), strict=True)
    found = torch.cat([_of_rows(p.double(), q.double()) for p, q in pieces])
    shape = (*base.shape[:-1], 1) if base.ndim else ()
    return found.to(base.device, base.dtype).view(shape)


def _of_rows(expert: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    p, q = (each.softmax(-1).add_(ADDED) for each in (expert, base))
    return p.mul_(p.div(q).log_()).sum(-1).clamp_(min=0)


def _threshold(importance: torch.Tensor) -> torch.Tensor:
    """Return median + 1.5 · interquartile range; quantile q is the entry at floor(q · (n - 1)) in order."""
    from evomerge.merge.masks import in_order

    last = importance.numel() - 1
    low, median, high = in_order(importance, [int(q * last) for q in (0.25, 0.5, 0.75)])
    threshold: torch.Tensor = median + 1.5 * (high - low)
    return threshold


ARCEE_FUSION = Method(
    name="arcee_fusion",
    merge=arcee_fusion,
    parameters={},
    needs_base=True,
    uses_base=True,
    min_models=1,
    max_models=1,
)
