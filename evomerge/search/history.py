"""What a study begins with: models known beforehand, and the events that a store recorded of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from evomerge.candidate import Candidate
from evomerge.candidate.trial import Entry, Failure, FailureKind, Gradients, Outcome, Race
from evomerge.kinds import SearchSpace
from evomerge.loggers import TrialEnded
from evomerge.objective import Objectives
from evomerge.racing import completed
from evomerge.store import Store, StoredBaseline, StoredGradient, StoredTrial, by_task

Recorded = StoredTrial | StoredGradient | StoredBaseline


@dataclass(frozen=True)
class Known:
    """A model scored on `search` that no trial asked for: a parent or a naive merge.

    Attributes:
        outcome: Of its search items, without a failure.
        params: Its point of the space; None where it does not lie in it.
        candidate: The model.
    """

    outcome: Outcome
    params: Mapping[str, float] | None = None
    candidate: Candidate | None = None


@dataclass(frozen=True)
class Told:
    """A trial that ends, as `Store.told` records it.

    Attributes:
        params: Its point of the space, once it is recorded.
        best: The best value so far, this one included, once it is recorded; as `Tally.best_value`.
    """

    entry: Entry
    outcome: Outcome
    values: Sequence[float] | None
    pruned: bool = False
    params: Mapping[str, float] = field(default_factory=dict)
    best: float | None = None

    def ended(self, names: Sequence[str]) -> TrialEnded:
        """Return what callbacks are told; `names` are those of the values, in their order."""
        outcome, values = self.outcome, self.values
        assert self.entry.number is not None
        return TrialEnded(
            number=self.entry.number,
            state="failed" if values is None else "pruned" if self.pruned else "complete",
            method=self.entry.candidate.label(),
            params=self.params,
            values={} if values is None else dict(zip(names, values, strict=True)),
            scores={} if values is None or self.pruned else by_task(outcome),
            seconds=outcome.cost.merge_seconds + outcome.cost.score_seconds,
            best=self.best,
            failure=None if outcome.failure is None else outcome.failure.reason,
        )


def checked(aims: Objectives, entry: Entry, outcome: Outcome, race: Race | None) -> Told:
    """Return what is recorded of an outcome; a score that is not finite is a failure."""
    if outcome.failure is not None:
        return Told(entry, outcome, None)
    whole = outcome if race is None else completed(race, outcome)
    values = aims.values(whole, outcome.candidate or entry.candidate)
    if all(map(math.isfinite, values)):
        return Told(entry, outcome, values, outcome.pruned is not None)
    shown = ", ".join(f"{value:g}" for value in values)
    failure = Failure(FailureKind.NOT_FINITE, f"the objective's value is {shown}")
    return Told(entry, replace(outcome, failure=failure), None)


def copied(aims: Objectives, entry: Entry, answer: Outcome) -> Told:
    """Return an earlier trial's outcome as the answer to another of its candidate, at no cost."""
    told = checked(aims, entry, answer, None)
    return replace(told, outcome=replace(told.outcome, cost=answer.cost.copy()))


def differentiated(
    space: SearchSpace, params: Mapping[str, float], found: Gradients
) -> tuple[dict[str, float] | None, str | None]:
    """Return a loss's gradient by each dimension, or None and why there is none."""
    if found.failure is not None:
        return None, f"{found.failure.kind}: {found.failure.reason}"
    gradients = space.gradient(params, found)
    fine = (bool(np.isfinite(one).all()) for one in found.rows.values())
    if all(map(math.isfinite, [found.loss, *gradients.values()])) and all(fine):
        return gradients, None
    return None, f"{FailureKind.NOT_FINITE}: the gradients are not finite"


def recorded(store: Store) -> list[tuple[Recorded, bool]]:
    """Return what was asked (False) or told (True), in its order; baselines are only told."""
    found: dict[int, tuple[Recorded, bool]] = {one.seq: (one, True) for one in store.baselines()}
    asked: list[StoredTrial | StoredGradient] = [*store.trials(), *store.gradient_steps()]
    for one in asked:
        found[one.asked_seq] = one, False
        if one.told_seq is not None:
            found[one.told_seq] = one, True
    return [found[seq] for seq in sorted(found)]
