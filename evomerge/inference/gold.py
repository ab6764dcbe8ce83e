"""Metrics on the gold answer: pure functions of logits, differentiable wherever they can be.

Shapes: R logit rows of V entries; T scored tokens; N answers. `answer` tells which answer a token
belongs to, `item` which item a choice belongs to.
"""

from __future__ import annotations

import torch
from torch import Tensor


def wide(logits: Tensor) -> Tensor:
    """Return logits in the dtype of the maths on them: float32, or float64 where they are that."""
    return logits if logits.dtype == torch.float64 else logits.float()


def token_loglikelihood(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return the log-likelihood of one token in each row.

    Args:
        logits: `[R, V]`, any floating dtype; the maths is float32, of float64 logits float64.
        tokens: `[R]`, int64.

    Returns:
        `[R]`, in nats.
    """
    logits = wide(logits)
    return logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(dim=1)


def gold_loglikelihood(tokens: Tensor, answer: Tensor, count: int) -> Tensor:
    """Return the mean token log-likelihood of each answer.

    Args:
        tokens: Log-likelihoods `[T]`.
        answer: `[T]`, int64, from 0 to `count` - 1.
        count: Number of answers N; each has a token.

    Returns:
        `[N]`, in nats a token.
    """
    return summed_loglikelihood(tokens, answer, count) / torch.bincount(answer, minlength=count)


def summed_loglikelihood(tokens: Tensor, answer: Tensor, count: int) -> Tensor:
    """Return the summed token log-likelihood of each answer, `[N]`; arguments as above.

    Summed in float64: one float32 after the other, a text of 500 tokens is some 5e-3 nats off.
    """
    wide = tokens.double()
    return wide.new_zeros(count).index_add(0, answer, wide).to(tokens.dtype)


def gold_probability(choices: Tensor, item: Tensor, right: Tensor, count: int) -> Tensor:
    """Return the softmax over each item's choices, the right ones' share.

    Args:
        choices: Summed log-likelihoods of all choices `[C]`.
        item: `[C]`, int64, from 0 to `count` - 1.
        right: `[C]`, bool.
        count: Number of items.

    Returns:
        `[count]`, from 0 to 1.
    """
    peak = choices.detach().new_full((count,), -torch.inf)
    peak = peak.scatter_reduce(0, item, choices.detach(), reduce="amax")
    weight = (choices - peak[item]).exp()
    total = weight.new_zeros(count).index_add(0, item, weight)
    return weight.new_zeros(count).index_add(0, item, weight * right) / total


def gold_exact_match(hits: Tensor, answer: Tensor, count: int) -> Tensor:
    """Return 1 for each answer all of whose tokens are the most likely ones, else 0.

    Args:
        hits: `[T]`, bool.
        answer: `[T]`, int64.
        count: Number of answers.

    Returns:
        `[count]`, float32.
    """
    missed = torch.zeros(count, device=hits.device).index_add(0, answer, (~hits).float())
    return (missed == 0).float()
