"""Which trials go to the select items: new models only, each of them once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from evomerge.candidate import Candidate
from evomerge.candidate.trial import Entry
from evomerge.space import Baseline


@dataclass(frozen=True)
class Finalists:
    """Trials in the order in which equals shall stand.

    Attributes:
        chosen: To be scored on `select`; no two of them are one model, and none is a parent or naive merge.
        copies: Key of a parent or naive merge → the first trial that is the same model. It takes no place,
            for the scores on `select` are known; it may still be the winner.
    """

    chosen: tuple[Entry, ...] = ()
    copies: Mapping[str, Entry] = field(default_factory=dict)


def pick(
    in_turn: Iterable[Entry],
    count: int,
    known: Sequence[Baseline],
    content: Callable[[Candidate], Hashable],
) -> Finalists:
    """Take trials until `count` new models are found.

    Args:
        in_turn: The trials, the likeliest winners first; read no further than needed.
        count: How many.
        known: Parents and naive merges.
        content: Candidate → a value that is equal for candidates of one model.
    """
    rows = {content(row.candidate): row.key for row in reversed(known)}
    chosen: dict[Hashable, Entry] = {}
    copies: dict[str, Entry] = {}
    for entry in in_turn:
        if len(chosen) == count:
            break
        found = content(entry.candidate)
        if found in rows:
            copies.setdefault(rows[found], entry)
        else:
            chosen.setdefault(found, entry)
    return Finalists(tuple(chosen.values()), copies)
