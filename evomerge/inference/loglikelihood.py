"""Planned batches → the log-likelihood of every scored token, and whether it was the most likely one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evomerge.inference import gold
from evomerge.inference.attention import Share
from evomerge.inference.batches import Batch
from evomerge.inference.cache import PreambleCache
from evomerge.inference.failures import NotFinite
from evomerge.inference.forward import Forward


@dataclass(frozen=True)
class TokenScores:
    """The scored tokens of all readings, in no fixed order, on the CPU, which adds them up in one order.

    Attributes:
        loglikelihood: `[T]`, float32; of a float64 module float64.
        hit: `[T]`, bool: the token was the most likely one.
        reading: `[T]`, int64: the reading that it belongs to.
        count: Number of readings.
    """

    loglikelihood: Tensor
    hit: Tensor
    reading: Tensor
    count: int

    def sums(self) -> Tensor:
        """Return the log-likelihood of each reading's targets, `[count]`."""
        return gold.summed_loglikelihood(self.loglikelihood, self.reading, self.count)

    def means(self) -> Tensor:
        """Return the mean token log-likelihood of each reading's targets, `[count]`."""
        return gold.gold_loglikelihood(self.loglikelihood, self.reading, self.count)

    def greedy(self) -> Tensor:
        """Return whether every target of a reading was the most likely token, `[count]`, 0 or 1."""
        return gold.gold_exact_match(self.hit, self.reading, self.count)


def score_batches(forward: Forward, batches: Sequence[Batch], count: int) -> TokenScores:
    """Run all batches; differentiable where the caller's mode allows it.

    Args:
        forward: The module.
        batches: From `batches.plan`, on the module's device.
        count: Number of readings behind them.

    Raises:
        NotFinite: A logit that is read is NaN or infinite; found on the first batch that has one.
    """
    loglikelihoods, hits, readings = [], [], []
    preamble, cache = None, None
    for batch in batches:
        if batch.preamble is not preamble:
            preamble = batch.preamble
            cache = forward.read_preamble(preamble) if preamble.shape[1] else None
        values, hit = _score(_logits(forward, batch, cache), batch)
        loglikelihoods.append(values)
        hits.append(hit)
        readings.append(batch.reading)
    if not batches:
        empty = torch.zeros(0)
        return TokenScores(empty, empty.bool(), empty.long(), count)
    found = (torch.cat(each).cpu() for each in (loglikelihoods, hits, readings))
    values, hit, reading = found
    return TokenScores(values, hit, reading, count)


def _logits(forward: Forward, batch: Batch, cache: PreambleCache | None) -> Tensor:
    apart = cache is not None and forward.cascades
    return gold.wide(
        forward(
            batch.tokens,
            batch.rows,
            visible=batch.visible(preamble=not apart),
            positions=batch.positions,
            cache=None if apart else cache,
            preambles=[Share(cache, None)] if cache is not None and apart else (),
        )
    )


def _score(logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    best = logits.argmax(dim=1)
    # As in HFLM: over large vocabularies its float32 rounding is systematic, 1e-5 nats a token.
    likelihoods = logits.log_softmax(dim=1)
    if bool(likelihoods[:, 0].isnan().any()):  # a NaN or +∞ anywhere makes the whole row NaN
        raise NotFinite("the logits are NaN or infinite")
    targets = batch.targets.clamp(min=0)
    values = likelihoods[batch.row, targets]
    hit = best[batch.row] == targets
    for number, ends in enumerate(batch.ends):
        (places,) = (batch.targets == -1 - number).nonzero(as_tuple=True)
        if len(places):
            rows = batch.row[places]
            any_end = likelihoods[rows[:, None], ends].logsumexp(dim=1)
            values = values.index_put((places,), any_end)
            hit = hit.index_put((places,), torch.isin(best[rows], ends))
    return values, hit
