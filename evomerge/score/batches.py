"""Readings → batches of rows, planned once: shared prefixes once, longest first, by token budget.

A row holds the common prefix of a group of readings once (its trunk) and behind it what differs (its
branches). A mask lets each branch see the trunk and itself, positions count on from the trunk, so
every reading gets the logits that it would get alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from evomerge.score.encoding import Reading, Tokens

_LOGITS_IN_MEMORY = 2**26  # entries: a quarter of a GiB in float32


@dataclass(frozen=True)
class Batch:
    """One forward pass.

    Attributes:
        tokens: `[B, L]`, int64, padded on the right.
        positions: `[B, L]`, int64; None where no row has branches: 0, 1, 2, ...
        branch: `[B, L]`, int64: 0 in the trunk, 1, 2, ... in the branches, -1 in padding; None where
            no row has branches.
        rows: `[R]`, int64: which of the B · L positions are read.
        row: `[T]`, int64: the entry of `rows` behind each scored token.
        targets: `[T]`, int64: the scored tokens; -1 - k where any of `ends[k]` is the target.
        ends: Sets of tokens that end an answer, each int64.
        reading: `[T]`, int64: the reading that each scored token belongs to.
    """

    tokens: Tensor
    positions: Tensor | None
    branch: Tensor | None
    rows: Tensor
    row: Tensor
    targets: Tensor
    ends: tuple[Tensor, ...]
    reading: Tensor

    def visible(self) -> Tensor | None:
        """Return `[B, 1, L, L]`, bool: which tokens (last axis) each sees; None: plainly causal.

        Made anew at every pass: kept, the masks of a campaign's few-shot prompts would fill memory.
        """
        if self.branch is None:
            return None
        width = self.branch.shape[1]
        causal = torch.ones(width, width, dtype=torch.bool, device=self.branch.device).tril()
        same = self.branch[:, :, None] == self.branch[:, None, :]
        return (causal & (same | (self.branch[:, None, :] == 0)))[:, None]


@dataclass(frozen=True)
class _Row:
    tokens: Tokens
    positions: list[int]
    branch: list[int]  # 0: the trunk
    reads: list[tuple[int, int, int]]  # (place in this row, target or index of an end set, reading)

    @property
    def is_branched(self) -> bool:
        return any(self.branch)


def plan(
    readings: Sequence[Reading],
    *,
    batch_tokens: int,
    vocabulary: int,
    share: bool,
    device: torch.device,
    longest_shared: int | None = None,
) -> list[Batch]:
    """Lay readings out in batches.

    Args:
        readings: What to score.
        batch_tokens: Most tokens of one batch, padding included; a longer row stands alone.
        vocabulary: Number of logits a position; bounds what one batch reads.
        share: Whether readings of one group share a row.
        device: Where the batches are kept.
        longest_shared: Longest reading that may share a row; None: any.
    """
    end_sets = tuple(dict.fromkeys(reading.ends for reading in readings if reading.ends))
    number = {ends: -1 - k for k, ends in enumerate(end_sets)}
    rows: list[_Row] = []
    order = sorted(range(len(readings)), key=lambda i: readings[i].group)
    for _, group in groupby(order, key=lambda i: readings[i].group):
        members = list(group)
        longest = max(len(readings[i].tokens) for i in members)
        if share and (longest_shared is None or longest <= longest_shared):
            rows.append(_row([(i, readings[i]) for i in members], number))
        else:
            rows += [_row([(i, readings[i])], number) for i in members]
    # Apart, since a full mask is slower than none and overrules a model's sliding window.
    rows.sort(key=lambda row: (row.is_branched, -len(row.tokens)))
    ends = tuple(torch.tensor(each, device=device) for each in end_sets)
    most_reads = max(1, _LOGITS_IN_MEMORY // vocabulary)
    batches: list[Batch] = []
    start = 0
    while start < len(rows):
        stop, reads = start + 1, len(rows[start].reads)
        width = len(rows[start].tokens)
        while stop < len(rows) and (stop + 1 - start) * width <= batch_tokens:
            reads += len(rows[stop].reads)
            if reads > most_reads or rows[stop].is_branched != rows[start].is_branched:
                break
            stop += 1
        batches.append(_batch(rows[start:stop], ends, device))
        start = stop
    return batches


def _row(members: Sequence[tuple[int, Reading]], number: dict[tuple[int, ...], int]) -> _Row:
    trunk = _common_prefix([reading.tokens for _, reading in members])
    tokens = members[0][1].tokens[:trunk]
    positions, branch = list(range(trunk)), [0] * trunk
    reads: list[tuple[int, int, int]] = []
    for branch_number, (index, reading) in enumerate(members, start=1):
        offset = len(tokens) - trunk
        tail = reading.tokens[trunk:]
        tokens = tokens + tail
        positions += range(trunk, trunk + len(tail))
        branch += [branch_number] * len(tail)
        wanted = reading.targets + ([number[reading.ends]] if reading.ends else [])
        first = len(reading.tokens) - len(wanted)
        for position, target in enumerate(wanted, start=first):
            reads.append((position if position < trunk else position + offset, target, index))
    return _Row(tokens, positions, branch, reads)


def _common_prefix(sequences: Sequence[Tokens]) -> int:
    if len(sequences) == 1:
        return len(sequences[0])
    low, high = min(sequences), max(sequences)  # in lexical order, these two differ first
    for index, (left, right) in enumerate(zip(low, high, strict=False)):
        if left != right:
            return index
    return min(len(low), len(high))


def _batch(rows: Sequence[_Row], ends: tuple[Tensor, ...], device: torch.device) -> Batch:
    width = max(len(row.tokens) for row in rows)
    tokens = torch.zeros(len(rows), width, dtype=torch.int64)
    positions, branch = torch.zeros_like(tokens), torch.full_like(tokens, -1)
    for index, row in enumerate(rows):
        length = len(row.tokens)
        tokens[index, :length] = torch.tensor(row.tokens)
        positions[index, :length] = torch.tensor(row.positions)
        branch[index, :length] = torch.tensor(row.branch)
    branched = rows[0].is_branched
    reads = [
        (index * width + place, target, reading)
        for index, row in enumerate(rows)
        for place, target, reading in row.reads
    ]
    places, targets, reading = torch.tensor(reads).T.contiguous()
    unique, row_of = places.unique(return_inverse=True)
    return Batch(
        tokens.to(device),
        positions.to(device) if branched else None,
        branch.to(device) if branched else None,
        unique.to(device),
        row_of.to(device),
        targets.to(device),
        ends,
        reading.to(device),
    )
