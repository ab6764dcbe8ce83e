"""Planned batches → the log-likelihood of every reading, and whether greedy decoding writes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from evomerge.inference.attention import Share
from evomerge.inference.batches import Batch
from evomerge.inference.cache import PreambleCache
from evomerge.inference.failures import NotFinite
from evomerge.inference.forward import Forward

See = Callable[[Tensor, Batch], object]
"""Is shown the log-probabilities `[R, V]` of a batch's `rows`, in the dtype of the likelihoods."""


def score_batches(
    forward: Forward,
    batches: Sequence[Batch],
    count: int,
    see: See | None = None,
    *,
    recomputed: bool = False,
) -> tuple[Tensor, Tensor]:
    """Run all batches; differentiable where the caller's mode allows it.

    Args:
        forward: The module.
        batches: From `batches.plan`, on the module's device.
        count: Number of readings behind them.
        see: Called with every batch.
        recomputed: Whether the module's layers are computed again in backward passes.

    Returns:
        The sum of the log-likelihoods of each reading's targets, `[count]`, in nats, float32 (of a float64
        module float64), and whether each of them was the most likely token, `[count]`, bool. Both on the
        CPU, which adds up in one order.

    Raises:
        NotFinite: A logit that is read is NaN or infinite; found on the first batch that has one.
    """
    if not batches:
        return torch.zeros(count), torch.ones(count, dtype=torch.bool)
    loglikelihoods, hits, readings = [], [], []
    preamble, cache = None, None
    for batch in batches:
        if batch.preamble is not preamble:
            preamble = batch.preamble
            cache = forward.read_preamble(preamble) if preamble.shape[1] else None
        values, hit = _score(_logits(forward, batch, cache, recomputed), batch, see)
        loglikelihoods.append(values)
        hits.append(hit)
        readings.append(batch.reading)
    values, hit, reading = (torch.cat(each).cpu() for each in (loglikelihoods, hits, readings))
    missed = torch.zeros(count).index_add(0, reading, (~hit).float())
    return added_up(values, reading, count), missed == 0


def added_up(values: Tensor, owner: Tensor, count: int) -> Tensor:
    """Return the sum of each owner's values, `[count]`, from `[T]` values and their owners' numbers.

    Summed in float64: one float32 after the other, a text of 500 tokens is some 5e-3 nats off.
    """
    wide = values.double()
    return wide.new_zeros(count).index_add(0, owner, wide).to(values.dtype)


def _logits(
    forward: Forward, batch: Batch, cache: PreambleCache | None, recomputed: bool
) -> Tensor:
    apart = cache is not None and forward.cascades
    logits = forward(
        batch.tokens,
        batch.rows,
        visible=batch.visible(preamble=not apart),
        positions=batch.positions,
        cache=None if apart else cache,
        preambles=[Share(cache, None)] if cache is not None and apart else (),
        recomputed=recomputed,
    )
    return logits if logits.dtype == torch.float64 else logits.float()


def _score(logits: Tensor, batch: Batch, see: See | None) -> tuple[Tensor, Tensor]:
    best = logits.argmax(dim=1)
    # As in HFLM: over large vocabularies its float32 rounding is systematic, 1e-5 nats a token.
    likelihoods = logits.log_softmax(dim=1)
    if bool(likelihoods[:, 0].isnan().any()):  # a NaN or +∞ anywhere makes the whole row NaN
        raise NotFinite("the logits are NaN or infinite")
    if see is not None:
        see(likelihoods, batch)
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
