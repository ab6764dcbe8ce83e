"""How far a module is from the gold answer of an item, or from a teacher, in nats: smooth, with a gradient.

From the gold answer:

- a task that generates: minus the log-likelihood of the gold answer, its end included;
- multiple choice: cross-entropy over the choices' log-likelihoods, -log Σ_right p + log Σ_all p;
- log-likelihood: minus that of the one continuation;
- rolling log-likelihood: minus the mean over the text's tokens.

From a teacher: the Kullback-Leibler divergence, summed over the scored positions where the log-likelihood
is; of multiple choice that between the distributions over the choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evomerge.candidate.trial import Target
from evomerge.inference.divergence import cut
from evomerge.inference.encoding import Reading


@dataclass(frozen=True)
class Question:
    """One item, as its loss needs it."""

    readings: tuple[Reading, ...]  # the choices, or all that is to be made likely
    # Of each choice, whether it is right; empty: the item is not multiple choice
    right: tuple[bool, ...] = ()
    scale: float = 1.0  # factor of the log-likelihoods' sum, where the item is not multiple choice
    is_answer: bool = True  # whether what is to be made likely can be right or wrong; a text cannot

    @property
    def tokens(self) -> int:
        """How many tokens are read, about: what the readings begin with counts once."""
        first, *others = self.readings
        return len(first.tokens) + sum(len(each.targets) for each in others)

    @property
    def reads(self) -> int:
        """How many positions are scored."""
        return sum(each.reads for each in self.readings)

    @property
    def positions(self) -> int:
        """At how many positions a teacher is asked: the scored ones; once for a choice."""
        return 1 if self.right else self.reads

    def by_reading(self, target: Target | None) -> list[Target | None]:
        """Share a target out among the readings; a choice has none of its own."""
        if target is None or self.right:
            return [None] * len(self.readings)
        return list(cut(target, [each.reads for each in self.readings]))


def item_losses(sums: Tensor, questions: Sequence[Question]) -> Tensor:
    """Return the loss of each of N items, `[N]`, in nats, from the log-likelihood of every reading.

    `sums` is `[R]`, question by question; the losses have its dtype.
    """
    count, item, is_choice, scale = _layout(sums, questions)
    right = torch.tensor(
        [r for each in questions for r in each.right or (False,) * len(each.readings)]
    ).to(sums.device)
    plain = sums.new_zeros(count).index_add(0, item[~is_choice], sums[~is_choice])
    everything = segment_logsumexp(sums[is_choice], item[is_choice], count)
    golds = segment_logsumexp(sums[right], item[right], count)
    return everything - golds - scale * plain


def item_divergences(
    sums: Tensor,
    divergences: Tensor,
    questions: Sequence[Question],
    targets: Sequence[Target | None],
) -> Tensor:
    """Return how far each of N items is from its target, `[N]`, in nats; 0 without a target.

    `divergences` are summed over the positions of every reading, `[R]` as `sums` is; multiple choice needs
    `sums` only.
    """
    count, item, is_choice, scale = _layout(sums, questions)
    plain = sums.new_zeros(count).index_add(0, item[~is_choice], divergences[~is_choice])
    told = torch.cat(
        [
            torch.from_numpy(target.logprobs[0])
            if target is not None and question.right
            else torch.full((len(question.readings),), torch.nan)
            for question, target in zip(questions, targets, strict=True)
        ]
    ).to(sums.device, sums.dtype)
    chosen = ~told.isnan()
    item = item[chosen]
    log_p, log_q = (
        each[chosen] - segment_logsumexp(each[chosen], item, count)[item] for each in (told, sums)
    )
    return (scale * plain).index_add(0, item, log_p.exp() * (log_p - log_q))


def _layout(sums: Tensor, questions: Sequence[Question]) -> tuple[int, Tensor, Tensor, Tensor]:
    """Return N; of each reading its item and whether it is a choice, `[R]`; of each item its scale, `[N]`."""
    count = len(questions)
    sizes = torch.tensor([len(each.readings) for each in questions])
    item = torch.repeat_interleave(torch.arange(count), sizes)
    is_choice = torch.tensor([bool(each.right) for each in questions])[item]
    scale = torch.tensor([each.scale for each in questions], dtype=sums.dtype)
    return count, item.to(sums.device), is_choice.to(sums.device), scale.to(sums.device)


def segment_logsumexp(values: Tensor, segment: Tensor, count: int) -> Tensor:
    """Return log Σ exp of each segment's values; 0 for a segment without any."""
    there = torch.bincount(segment, minlength=count) > 0
    peak = values.new_full((count,), -torch.inf)
    peak = peak.scatter_reduce(0, segment, values.detach(), reduce="amax").masked_fill(~there, 0)
    total = values.new_zeros(count).index_add(0, segment, (values - peak[segment]).exp())
    return total.masked_fill(~there, 1).log() + peak
