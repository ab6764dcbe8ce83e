"""What a teacher says next, and how far another module is from it: D(teacher ‖ module), in nats.

Of a small vocabulary a teacher tells every log-probability; of a large one those of its likeliest
tokens, and what the others share. Those others count as one outcome, which makes the divergence a
lower bound of the full one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evomerge.candidate.trial import Target
from evomerge.inference.batches import Batch
from evomerge.inference.loglikelihood import added_up

WHOLE_VOCABULARY = 512  # tokens; of a larger vocabulary only the likeliest are told
LIKELIEST = 64
_LOWEST = float(
    torch.finfo(torch.float16).min
)  # e to this power is 0; unlike -∞ times 0, so is 0 times it


class Listener:
    """Takes down what a module says at the scored positions of chosen readings, as batches are read.

    Args:
        wanted: Of each reading, whether it is chosen.

    Attributes:
        targets: One a reading; None where it is not chosen or not read yet.
    """

    def __init__(self, wanted: Sequence[bool]) -> None:
        self._wanted = wanted
        self.targets: list[Target | None] = [None] * len(wanted)

    def __call__(self, logprobs: Tensor, batch: Batch) -> None:
        """Take down one batch, of log-probabilities `[R, V]`."""
        chosen = [(reading, span) for reading, span in _spans(batch) if self._wanted[reading]]
        if chosen:
            said, row = told(logprobs), batch.row.cpu().numpy()
            for reading, span in chosen:
                self.targets[reading] = _picked(said, row[span])


class Divergence:
    """Adds up how far a module is from a teacher, reading by reading, as batches are read.

    Args:
        targets: One a reading, with a row for each of its scored positions; None: not asked.
        temperature: As of `divergences`.
    """

    def __init__(self, targets: Sequence[Target | None], temperature: float = 1.0) -> None:
        self._targets, self._temperature = targets, temperature
        self._values: list[Tensor] = []
        self._readings: list[Tensor] = []

    def __call__(self, logprobs: Tensor, batch: Batch) -> None:
        """Add one batch, of log-probabilities `[R, V]`."""
        asked = [
            (target, span)
            for reading, span in _spans(batch)
            if (target := self._targets[reading]) is not None
        ]
        if not asked:
            return
        places = torch.cat([torch.arange(span.start, span.stop) for _, span in asked])
        places = places.to(batch.row.device)
        target = joined([target for target, _ in asked])
        row = batch.row[places]
        self._values.append(divergences(logprobs, row, target, self._temperature))
        self._readings.append(batch.reading[places])

    def sums(self, like: Tensor) -> Tensor:
        """Return the sum over each reading's positions, shaped as `like`, on the CPU; 0 without a target."""
        if not self._values:
            return torch.zeros_like(like)
        values, readings = (torch.cat(each).cpu() for each in (self._values, self._readings))
        return added_up(values, readings, len(like))


@torch.no_grad()
def told(logprobs: Tensor, whole: int = WHOLE_VOCABULARY, likeliest: int = LIKELIEST) -> Target:
    """Return what log-probabilities `[T, V]` say: all of up to `whole` tokens, else the `likeliest`."""
    if logprobs.shape[1] <= max(whole, likeliest):
        return Target(_half(logprobs))
    values, tokens = logprobs.topk(likeliest, dim=1)
    rest = logprobs.scatter(1, tokens, -torch.inf).logsumexp(dim=1)
    return Target(_half(values), tokens.to("cpu", torch.int32).numpy(), _half(rest))


def divergences(logprobs: Tensor, row: Tensor, target: Target, temperature: float = 1.0) -> Tensor:
    """Return Σ p (log p - log q) at each of T positions, `[T]`, smooth in q.

    At another temperature τ than 1, p and q are those to the power of 1/τ, made to add up to 1, and the
    divergence is τ² times theirs (Hinton et al. 2015, 1503.02531): the less likely tokens count more.

    Args:
        logprobs: log q, `[R, V]`.
        row: Which of its rows each position is, `[T]`.
        target: p, of T positions; made to add up to 1, which its half precision spoils.
        temperature: τ.
    """
    log_q, log_p = logprobs.index_select(0, row), _tensor(target.logprobs, logprobs)
    if target.tokens is not None and target.rest is not None:
        tokens = torch.from_numpy(target.tokens).to(row.device, torch.int64)
        known = logprobs[row[:, None], tokens]
        # From what is left, not 1 - Σ q: that is lost in rounding where the told tokens have nearly all.
        others = log_q.scatter_(1, tokens, torch.finfo(log_q.dtype).min)
        log_q = torch.cat([known, others.logsumexp(1, keepdim=True)], dim=1)
        log_p = torch.cat([log_p, _tensor(target.rest, logprobs)[:, None]], dim=1)
    log_p = (log_p / temperature).log_softmax(dim=1)
    if temperature != 1:
        log_q = (log_q / temperature).log_softmax(dim=1)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(dim=1)


def joined(targets: Sequence[Target]) -> Target:
    """Put the positions of targets behind each other."""
    if len(targets) == 1:
        return targets[0]
    tokens = [each.tokens for each in targets if each.tokens is not None]
    rest = [each.rest for each in targets if each.rest is not None]
    return Target(
        np.concatenate([each.logprobs for each in targets]),
        np.concatenate(tokens) if tokens else None,
        np.concatenate(rest) if rest else None,
    )


def cut(target: Target, sizes: Sequence[int]) -> list[Target]:
    """Cut a target into parts of so many positions, as `joined` joined them."""
    stops = np.cumsum(sizes)
    return [
        _picked(target, slice(stop - size, stop)) for size, stop in zip(sizes, stops, strict=True)
    ]


def _spans(batch: Batch) -> Iterator[tuple[int, slice]]:
    """Give each reading of a batch, and where its scored tokens stand: side by side, in their order."""
    readings = batch.reading.cpu().numpy()
    starts = [0, *(np.flatnonzero(np.diff(readings)) + 1).tolist()]
    for start, stop in zip(starts, [*starts[1:], len(readings)], strict=True):
        yield int(readings[start]), slice(start, stop)


def _picked(target: Target, rows: Any) -> Target:  # noqa: ANN401 - any index of NumPy's
    return Target(
        target.logprobs[rows],
        None if target.tokens is None else target.tokens[rows],
        None if target.rest is None else target.rest[rows],
    )


def _half(values: Tensor) -> Any:  # noqa: ANN401 - a NumPy array
    return values.clamp(min=_LOWEST).to("cpu", torch.float16).numpy()


def _tensor(values: np.ndarray[Any, Any], like: Tensor) -> Tensor:
    return torch.from_numpy(values).to(like.device, like.dtype)
