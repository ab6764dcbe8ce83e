"""Who did what when: the work of a study as spans of time, by worker."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from evomerge.candidate.cost import Cost
from evomerge.candidate.trial import Outcome, Split

if TYPE_CHECKING:
    from evomerge.store import Evaluation, StoredGradient, StoredTrial

Work = Literal["trial", "gradient step", "row"]
State = Literal["complete", "pruned", "failed"]

PAUSE = 60.0
"""Seconds; nobody works for longer than this, and than any work took: the study was interrupted."""


@dataclass(frozen=True)
class Span:
    """One piece of a worker's work.

    Attributes:
        worker: Who, such as `node/pid`.
        began: Unix time.
        seconds: How long it took.
        work: A trial, a step of a descent, or a row of the leaderboard on one split.
        state: `pruned`: its race was lost.
        name: Such as `trial 17`.
        split: On which items.
        reason: Why it was pruned or failed; else empty.
    """

    worker: str
    began: float
    seconds: float
    work: Work
    state: State
    name: str
    split: Split
    reason: str = ""

    @property
    def ended(self) -> float:
        """Unix time."""
        return self.began + self.seconds


@dataclass(frozen=True)
class StudyClock:
    """Time since a study began, without the time for which it was interrupted.

    Attributes:
        origin: Unix time of its begin.
        pauses: Begin and end of each interruption, in order.
    """

    origin: float = 0.0
    pauses: tuple[tuple[float, float], ...] = ()

    @classmethod
    def of(cls, spans: Iterable[Span]) -> StudyClock:
        """Return the clock of some work."""
        work = sorted((one.began, one.ended) for one in spans)
        if not work:
            return cls()
        shortest = max(PAUSE, *(ended - began for began, ended in work))
        pauses, last = [], work[0][1]
        for began, ended in work:
            if began - last > shortest:
                pauses.append((last, began))
            last = max(last, ended)
        return cls(work[0][0], tuple(pauses))

    def __call__(self, when: float) -> float:
        """Return the seconds from the begin to a Unix time."""
        before = self.pauses[: bisect_left(self.pauses, (when,))]
        return when - self.origin - sum(min(when, stop) - start for start, stop in before)


def spans_of(
    trials: Sequence[StoredTrial],
    steps: Sequence[StoredGradient],
    evaluations: Sequence[Evaluation] = (),
) -> tuple[Span, ...]:
    """Return all work of which it is known when it began, in that order."""
    found = [*_of_trials(trials), *_of_steps(steps)]
    for one in evaluations:
        found += _span(one.outcome, "row", one.name, one.split)
    return tuple(sorted(found, key=lambda span: span.began))


def _of_trials(trials: Sequence[StoredTrial]) -> Iterator[Span]:
    for trial in trials:
        if trial.outcome is not None:
            yield from _span(trial.outcome, "trial", f"trial {trial.number}", "search")


def _of_steps(steps: Sequence[StoredGradient]) -> Iterator[Span]:
    for step in steps:
        if step.cost.began is not None:
            state: State = "complete" if step.failure is None else "failed"
            name = f"descent {step.descent}, step {step.step}"
            yield Span(
                step.worker,
                step.cost.began,
                _seconds(step.cost),
                "gradient step",
                state,
                name,
                "search",
                step.failure or "",
            )


def _span(outcome: Outcome, work: Work, name: str, split: Split) -> Iterator[Span]:
    began = outcome.cost.began
    if began is None:
        return
    state: State = "complete"
    reason = ""
    if outcome.pruned is not None:
        state, reason = "pruned", outcome.pruned.reason
    if outcome.failure is not None:
        state, reason = "failed", f"{outcome.failure.kind}: {outcome.failure.reason}"
    yield Span(outcome.worker, began, _seconds(outcome.cost), work, state, name, split, reason)


def _seconds(cost: Cost) -> float:
    return cost.merge_seconds + cost.score_seconds
