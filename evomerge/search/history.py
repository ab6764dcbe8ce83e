"""What a study begins with: models known beforehand, and the events that a store recorded of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from evomerge.candidate.trial import Entry, Outcome
from evomerge.store import Store, StoredBaseline, StoredGradient, StoredTrial


@dataclass(frozen=True)
class Known:
    """A model scored on `search` that no trial asked for: a parent or a naive merge.

    Attributes:
        outcome: Of its search items, without a failure.
        params: Its point of the space; None where it does not lie in it.
    """

    outcome: Outcome
    params: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Told:
    """A trial that ends, as `Store.told` records it."""

    entry: Entry
    outcome: Outcome
    values: Sequence[float] | None
    pruned: bool = False


@dataclass(frozen=True)
class Event:
    """Something was asked, or its result was told.

    Attributes:
        what: A trial, a step of a descent, or a baseline (which is only told).
        kind: Which of the two.
    """

    what: StoredTrial | StoredGradient | StoredBaseline
    kind: Literal["asked", "told"]


def events(store: Store) -> list[Event]:
    """Return all events of a study in their order."""
    return [event for _, event in sorted(_numbered(store), key=lambda pair: pair[0])]


def _numbered(store: Store) -> Iterator[tuple[int, Event]]:
    for baseline in store.baselines():
        yield baseline.seq, Event(baseline, "told")
    asked: list[StoredTrial | StoredGradient] = [*store.trials(), *store.gradient_steps()]
    for one in asked:
        yield one.asked_seq, Event(one, "asked")
        if one.told_seq is not None:
            yield one.told_seq, Event(one, "told")
