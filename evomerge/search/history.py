"""What a store recorded of a study, as events in the order in which they happened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from evomerge.store import Store, StoredBaseline, StoredSlope, StoredTrial


@dataclass(frozen=True)
class Event:
    """Something was asked, or its result was told.

    Attributes:
        what: A trial, a step of a descent, or a baseline (which is only told).
        kind: Which of the two.
    """

    what: StoredTrial | StoredSlope | StoredBaseline
    kind: Literal["asked", "told"]


def events(store: Store) -> list[Event]:
    """Return all events of a study in their order."""
    return [event for _, event in sorted(_numbered(store), key=lambda pair: pair[0])]


def _numbered(store: Store) -> Iterator[tuple[int, Event]]:
    for baseline in store.baselines():
        yield baseline.seq, Event(baseline, "told")
    asked: list[StoredTrial | StoredSlope] = [*store.trials(), *store.slope_steps()]
    for one in asked:
        yield one.asked_seq, Event(one, "asked")
        if one.told_seq is not None:
            yield one.told_seq, Event(one, "told")
