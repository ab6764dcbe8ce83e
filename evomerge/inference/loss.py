"""How far a module is from the gold answer of an item, in nats: smooth, so that it has a gradient.

- a task that generates: minus the log-likelihood of the gold answer, its end included;
- multiple choice: cross-entropy over the choices' log-likelihoods, -log Σ_right p + log Σ_all p;
- log-likelihood: minus that of the one continuation;
- rolling log-likelihood: minus the mean over the text's tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evomerge.inference.encoding import Reading


@dataclass(frozen=True)
class Question:
    """One item, as its loss needs it."""

    readings: tuple[Reading, ...]  # the choices, or all that is to be made likely
    # Of each choice, whether it is right; empty: the item is not multiple choice
    right: tuple[bool, ...] = ()
    scale: float = 1.0  # factor of the log-likelihoods' sum, where the item is not multiple choice

    @property
    def tokens(self) -> int:
        """How many tokens are read, about: what the readings begin with counts once."""
        first, *others = self.readings
        return len(first.tokens) + sum(len(each.targets) for each in others)

    @property
    def reads(self) -> int:
        """How many tokens are scored."""
        return sum(len(each.targets) + bool(each.ends) for each in self.readings)


def item_losses(sums: Tensor, questions: Sequence[Question]) -> Tensor:
    """Return the loss of each of N items, `[N]`, in nats, from the log-likelihood of every reading.

    `sums` is `[R]`, question by question; the losses have its dtype.
    """
    count = len(questions)
    sizes = torch.tensor([len(each.readings) for each in questions])
    item = torch.repeat_interleave(torch.arange(count), sizes)
    is_choice = torch.tensor([bool(each.right) for each in questions])[item]
    right = torch.tensor(
        [r for each in questions for r in each.right or (False,) * len(each.readings)]
    )
    scale = torch.tensor([each.scale for each in questions], dtype=sums.dtype)
    item, is_choice, right, scale = (
        each.to(sums.device) for each in (item, is_choice, right, scale)
    )
    plain = sums.new_zeros(count).index_add(0, item[~is_choice], sums[~is_choice])
    everything = segment_logsumexp(sums[is_choice], item[is_choice], count)
    golds = segment_logsumexp(sums[right], item[right], count)
    return everything - golds - scale * plain


def segment_logsumexp(values: Tensor, segment: Tensor, count: int) -> Tensor:
    """Return log Σ exp of each segment's values; 0 for a segment without any."""
    there = torch.bincount(segment, minlength=count) > 0
    peak = values.new_full((count,), -torch.inf)
    peak = peak.scatter_reduce(0, segment, values.detach(), reduce="amax").masked_fill(~there, 0)
    total = values.new_zeros(count).index_add(0, segment, (values - peak[segment]).exp())
    return total.masked_fill(~there, 1).log() + peak
