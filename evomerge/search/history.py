"""What a study begins with: models known beforehand, and the events that a store recorded of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evomerge.candidate.trial import Entry, Outcome
from evomerge.store import Store, StoredBaseline, StoredGradient, StoredTrial

Recorded = StoredTrial | StoredGradient | StoredBaseline


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


def recorded(store: Store) -> list[tuple[Recorded, bool]]:
    """Return what was asked (False) or told (True), in its order; baselines are only told."""
    found: dict[int, tuple[Recorded, bool]] = {one.seq: (one, True) for one in store.baselines()}
    asked: list[StoredTrial | StoredGradient] = [*store.trials(), *store.gradient_steps()]
    for one in asked:
        found[one.asked_seq] = one, False
        if one.told_seq is not None:
            found[one.told_seq] = one, True
    return [found[seq] for seq in sorted(found)]
