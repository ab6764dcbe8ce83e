"""Readings → batches of rows, planned once: what readings share once, longest first, by token budget.

A row holds a group of readings as a prefix tree, its tokens in depth-first order: the prompt, and behind
it the answers, which share what they begin with. A token is seen by those below it in the tree only, and
positions count on from the parent, so every reading gets the logits that it would get alone. What many
rows begin with (few-shot examples, an instruction) is their preamble: computed once, and kept as keys and
values while its batches run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evomerge.inference.encoding import Reading
from evomerge.inference.preambles import begin_alike, common_length
from evomerge.inference.stopping import Tokens

LOGITS_IN_MEMORY = 2**26  # entries: a quarter of a GiB in float32


@dataclass(frozen=True)
class Batch:
    """One forward pass."""

    # `[1, P]`, int64: what every row begins with; P may be 0. The batches of one preamble stand
    # together and hold the same tensor
    preamble: Tensor
    tokens: Tensor  # `[B, L]`, int64, what follows it, padded on the right
    positions: Tensor | None  # `[B, L]`, int64; None: counted from 0
    # `[B, L]`, int64: the column at which the tokens that see this one end; None: plainly causal,
    # without branches or preamble
    reach: Tensor | None
    rows: Tensor  # `[R]`, int64: which of the B · L positions are read
    row: Tensor  # `[T]`, int64: the entry of `rows` behind each scored token
    targets: Tensor  # `[T]`, int64: the scored tokens; -1 - k where any of `ends[k]` is the target
    ends: tuple[Tensor, ...]  # sets of tokens that end an answer, each int64
    reading: Tensor  # `[T]`, int64: the reading that each scored token belongs to

    def visible(self, *, preamble: bool = True) -> Tensor | None:
        """Return `[B, 1, L, P + L]`, bool: which tokens (last axis) each sees; None: plainly causal.

        Without the `preamble`, `[B, 1, L, L]`.

        Rebuilt at every pass: kept, the masks of a campaign's few-shot prompts would fill memory.
        """
        if self.reach is None:
            return None
        columns = torch.arange(self.reach.shape[1], device=self.reach.device)
        seen = (columns <= columns[:, None]) & (columns[:, None] < self.reach[:, None, :])
        if not preamble:
            return seen[:, None]
        before = seen.new_ones(()).expand(*seen.shape[:2], self.preamble.shape[1])
        return torch.cat([before, seen], dim=2)[:, None]


@dataclass(frozen=True)
class _Row:
    tokens: Tokens
    positions: list[int]
    reach: list[int]
    reads: list[tuple[int, int, int]]  # (place in this row, target or index of an end set, reading)
    stem: int  # its first tokens that everything else sees and that nothing reads

    @property
    def is_branched(self) -> bool:
        return min(self.reach) < len(self.tokens)


def plan(
    readings: Sequence[Reading],
    *,
    batch_tokens: int,
    vocabulary: int,
    share: bool,
    device: torch.device,
    longest_shared: int | None = None,
    preambles: bool = True,
) -> list[Batch]:
    """Lay readings out in batches.

    Args:
        readings: What to score.
        batch_tokens: Most tokens of one batch, padding included; a longer row stands alone.
        vocabulary: Number of logits a position; bounds what one batch reads.
        share: Whether readings may share rows and preambles.
        device: Where the batches are kept.
        longest_shared: Longest reading that may share anything; None: any.
        preambles: Whether what many rows begin with is computed once; needs a cache.
    """
    end_sets = tuple(dict.fromkeys(reading.ends for reading in readings if reading.ends))
    number = {ends: -1 - k for k, ends in enumerate(end_sets)}
    ends = tuple(torch.tensor(each, device=device) for each in end_sets)
    sharing: list[_Row] = []
    alone: list[_Row] = []
    groups: dict[int, list[int]] = {}
    for index, reading in enumerate(readings):
        groups.setdefault(reading.group, []).append(index)
    for members in groups.values():
        longest = max(len(readings[i].tokens) for i in members)
        if share and (longest_shared is None or longest <= longest_shared):
            sharing.append(_row([(i, readings[i]) for i in members], number))
        else:
            alone += [_row([(i, readings[i])], number) for i in members]
    batches: list[Batch] = []
    most_reads = max(1, LOGITS_IN_MEMORY // vocabulary)
    stems = [row.tokens[: row.stem] if preambles else [] for row in sharing]
    for alike in begin_alike(stems):
        rows = [sharing[index] for index in alike.members]
        preamble = rows[0].tokens[: alike.shared]
        if not preamble:
            alone += rows
            continue
        kept = torch.tensor([preamble], device=device)
        cut = [_behind(row, alike.shared) for row in rows]
        for chunk in _chunks(cut, batch_tokens, most_reads):
            batches.append(_batch(kept, chunk, ends, device))
    none = torch.zeros(1, 0, dtype=torch.int64, device=device)
    # Apart, since a full mask is slower than none and overrules a model's sliding window.
    for is_branched in (False, True):
        rows = [row for row in alone if row.is_branched == is_branched]
        for chunk in _chunks(rows, batch_tokens, most_reads):
            batches.append(_batch(none, chunk, ends, device))
    return batches


def _row(members: Sequence[tuple[int, Reading]], number: dict[tuple[int, ...], int]) -> _Row:
    tokens: Tokens = []
    positions: list[int] = []
    reach: list[int] = []
    reads: list[tuple[int, int, int]] = []
    path: list[int] = []  # where the tokens of the reading before this one stand
    before: Tokens = []
    for index, reading in sorted(members, key=lambda member: member[1].tokens):
        shared = common_length(before, reading.tokens)
        for place in path[shared:]:
            reach[place] = len(tokens)
        added = reading.tokens[shared:]
        path = path[:shared] + list(range(len(tokens), len(tokens) + len(added)))
        tokens += added
        positions += range(shared, len(reading.tokens))
        reach += [0] * len(added)
        wanted = reading.targets + ([number[reading.ends]] if reading.ends else [])
        first = len(reading.tokens) - len(wanted)
        reads += [(path[first + i], target, index) for i, target in enumerate(wanted)]
        before = reading.tokens
    for place in path:
        reach[place] = len(tokens)
    forked = next((i for i, end in enumerate(reach) if end < len(tokens)), len(tokens))
    return _Row(tokens, positions, reach, reads, min(forked, min(place for place, _, _ in reads)))


def _behind(row: _Row, shared: int) -> _Row:
    """Take the preamble off a row."""
    return _Row(
        row.tokens[shared:],
        row.positions[shared:],
        [end - shared for end in row.reach[shared:]],
        [(place - shared, target, reading) for place, target, reading in row.reads],
        0,
    )


def _chunks(rows: Sequence[_Row], batch_tokens: int, most_reads: int) -> list[Sequence[_Row]]:
    """Cut rows, longest first, into batches."""
    ordered = sorted(rows, key=lambda row: -len(row.tokens))
    chunks: list[Sequence[_Row]] = []
    start = 0
    while start < len(ordered):
        stop, reads = start + 1, len(ordered[start].reads)
        width = len(ordered[start].tokens)
        while stop < len(ordered) and (stop + 1 - start) * width <= batch_tokens:
            reads += len(ordered[stop].reads)
            if reads > most_reads:
                break
            stop += 1
        chunks.append(ordered[start:stop])
        start = stop
    return chunks


def _batch(
    preamble: Tensor, rows: Sequence[_Row], ends: tuple[Tensor, ...], device: torch.device
) -> Batch:
    width = max(len(row.tokens) for row in rows)
    tokens = torch.zeros(len(rows), width, dtype=torch.int64)
    positions = torch.zeros_like(tokens)
    reach = torch.arange(1, width + 1).repeat(len(rows), 1)  # padding is seen by itself only
    for index, row in enumerate(rows):
        length = len(row.tokens)
        tokens[index, :length] = torch.tensor(row.tokens)
        positions[index, :length] = torch.tensor(row.positions)
        reach[index, :length] = torch.tensor(row.reach)
    masked = preamble.shape[1] > 0 or rows[0].is_branched
    reads = [
        (index * width + place, target, reading)
        for index, row in enumerate(rows)
        for place, target, reading in row.reads
    ]
    places, targets, reading = torch.tensor(reads).T.contiguous()
    unique, row_of = places.unique(return_inverse=True)
    return Batch(
        preamble,
        tokens.to(device),
        positions.to(device) if masked else None,
        reach.to(device) if masked else None,
        unique.to(device),
        row_of.to(device),
        targets.to(device),
        ends,
        reading.to(device),
    )
