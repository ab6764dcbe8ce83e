"""Rows of embeddings and heads, matched by token: each input of a tensor as the others fill it up."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial, reduce

import torch

from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.files import TensorHeader

ZERO = -1
MEAN = -2


@dataclass(frozen=True)
class Group:
    """The inputs of one tensor, and where each row comes from.

    Attributes:
        key: Tells it from other groups, and from those of other vocabularies.
        names: The inputs.
        own: Input → its own row of each row of the output, -1 where it has none; int64 `[rows]`.
        tokens: Rows that stand for a token; the others are padding. bool `[rows]`.
        donor: What an input gets that lacks a token: the place of another input in `names`, `ZERO`, or
            `MEAN`: of those that have it. int64 `[rows]`.
        donor_row: Which row of that input. int64 `[rows]`.
        forced: Rows that every input gets so. bool `[rows]`.
    """

    key: Hashable
    names: tuple[str, ...]
    own: Mapping[str, torch.Tensor] = field(repr=False)
    tokens: torch.Tensor = field(repr=False)
    donor: torch.Tensor = field(repr=False)
    donor_row: torch.Tensor = field(repr=False)
    forced: torch.Tensor = field(repr=False)

    @classmethod
    def of(
        cls,
        vocabulary: Hashable,
        names: tuple[str, ...],
        base: str | None,
        own: Mapping[str, torch.Tensor],
        numbers: Iterable[int],
    ) -> Group:
        """Fill up by the rules: the only owner, else the base, else the mean of the owners, else zeros.

        `numbers` are the rows of the output that stand for a token; `vocabulary` tells it from others.
        """
        stacked = torch.stack([own[name] for name in names])  # [inputs, rows]
        has = stacked >= 0
        count = has.sum(0)
        donor = torch.full_like(stacked[0], MEAN)
        if base is not None:
            place = names.index(base)
            donor[has[place]] = place
        donor = torch.where(count == 1, has.to(torch.int64).argmax(0), donor)
        donor[count == 0] = ZERO
        tokens = torch.zeros_like(donor, dtype=torch.bool)
        tokens[torch.tensor(list(numbers), dtype=torch.int64)] = True
        donor_row = stacked.gather(0, donor.clamp_min(0)[None])[0]
        forced = torch.zeros_like(tokens)
        return cls((vocabulary, names, base), names, own, tokens, donor, donor_row, forced)

    def all_have(self, row: int) -> bool:
        """Tell whether every input has a row of its own there."""
        return all(int(self.own[name][row]) >= 0 for name in self.names)

    def counts(self, base: str | None) -> dict[str, int]:
        """Count the tokens that some inputs lack (or must not use), by the rule that gives them a row."""
        owned = torch.stack([self.own[name] for name in self.names]) >= 0
        lacking = self.tokens & (~owned.all(0) | self.forced)
        only = lacking & (self.donor >= 0) & (owned.sum(0) <= 1)
        place = ZERO if base is None else self.names.index(base)
        others = lacking & (self.donor >= 0) & ~only
        return {
            "its only owner's row": int(only.sum()),
            "the base's row": int((others & (self.donor == place)).sum()),
            "another model's row": int((others & (self.donor != place)).sum()),
            "the mean of its owners' rows": int((lacking & (self.donor == MEAN)).sum()),
            "zeros": int((lacking & (self.donor == ZERO)).sum()),
        }

    def override(self, row: int, source: tuple[str, int] | None, *, force: bool) -> None:
        """Say where a row comes from: an input and its row, or zeros; `force`: also where one has its own."""
        self.donor[row] = ZERO if source is None else self.names.index(source[0])
        self.donor_row[row] = 0 if source is None else source[1]
        self.forced[row] = force

    def is_plain(self, name: str, height: int) -> bool:
        """Tell whether an input is as it was, or cut: no row moves, and none is filled."""
        own = self.own[name]
        return (
            len(own) <= height
            and bool(self.tokens.all())
            and not bool(self.forced.any())
            and torch.equal(own, torch.arange(len(own)))
        )

    def borrowed(self, name: str) -> torch.Tensor:
        """Return the rows of an input that are not its own, padding apart; bool `[rows]`."""
        return self.tokens & ((self.own[name] < 0) | self.forced)

    def lenders(self, name: str) -> tuple[str, ...]:
        """Return the inputs that rows of an input are made from, itself left out."""
        donors = self.donor[self.borrowed(name)]
        if bool((donors == MEAN).any()):
            return tuple(other for other in self.names if other != name)
        found = sorted({place for place in donors.tolist() if place >= 0})
        return tuple(self.names[place] for place in found if self.names[place] != name)


def seen_through(
    checkpoint: Checkpoint, groups: Mapping[str, Group], checkpoints: Mapping[str, Checkpoint]
) -> Checkpoint:
    """Return a model with some of its tensors row by row in another vocabulary.

    Args:
        checkpoint: The model.
        groups: Tensor → the inputs that it is merged with.
        checkpoints: All inputs by name.
    """
    name = next((key for key, one in checkpoints.items() if one is checkpoint), checkpoint.name)
    headers = dict(checkpoint.tensors)
    views = dict(checkpoint.views)
    reads: dict[str, Callable[[], torch.Tensor]] = {}
    filled = set()
    for tensor, group in groups.items():
        header = headers[tensor]
        rows = len(group.tokens)
        dtype = header.dtype
        for lender in group.lenders(name):
            dtype = torch.promote_types(dtype, checkpoints[lender].tensors[tensor].dtype)
        headers[tensor] = TensorHeader((rows, *header.shape[1:]), dtype)
        views[tensor] = group.key
        if group.is_plain(name, header.shape[0]):
            reads[tensor] = partial(lambda name, stop: checkpoint.tensor(name)[:stop], tensor, rows)
        else:
            filled.add(tensor)
            reads[tensor] = partial(_filled, checkpoints, name, tensor, group, dtype)

    def read(tensor: str) -> torch.Tensor:
        return reads[tensor]() if tensor in reads else checkpoint.tensor(tensor)

    return replace(
        checkpoint,
        tensors=headers,
        views=views,
        adapted=checkpoint.adapted | filled,
        updates={key: one for key, one in checkpoint.updates.items() if key not in groups},
        _read=read,
    )


def _filled(
    checkpoints: Mapping[str, Checkpoint],
    name: str,
    tensor: str,
    group: Group,
    dtype: torch.dtype,
) -> torch.Tensor:
    stored = checkpoints[name].tensor(tensor)
    out = stored.index_select(0, group.own[name].clamp_min(0)).to(dtype)
    borrowed = group.borrowed(name)
    out[borrowed & (group.donor == ZERO)] = 0
    for place, lender in enumerate(group.names):
        rows = borrowed & (group.donor == place)
        if bool(rows.any()):
            found = checkpoints[lender].tensor(tensor)[group.donor_row[rows]]
            out[rows] = found.to(dtype)
    shared = borrowed & (group.donor == MEAN)
    if bool(shared.any()):
        out[shared] = _mean(checkpoints, tensor, group, shared).to(dtype)
    if not bool(group.tokens.all()):
        out[~group.tokens] = out[group.tokens].float().mean(0).to(dtype)
    return out


def _mean(
    checkpoints: Mapping[str, Checkpoint], tensor: str, group: Group, rows: torch.Tensor
) -> torch.Tensor:
    """Return the mean, over the inputs that have a token, of its rows; float32."""

    def owned(name: str) -> torch.Tensor:
        own = group.own[name][rows]
        found = checkpoints[name].tensor(tensor)[own.clamp_min(0)].float()
        found[own < 0] = 0
        return found

    total = reduce(torch.add, map(owned, group.names))
    count = torch.stack([group.own[name][rows] >= 0 for name in group.names]).sum(0).float()
    return total / count.view(-1, *[1] * (total.ndim - 1))
