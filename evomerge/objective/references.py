"""What values are measured by: the recorded outcomes of parents and baselines on one split."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from evomerge.candidate.trial import FailureKind, Outcome, Split, TaskScores
from evomerge.config.objectives import Reference


class Recorded(Protocol):
    """A row's scores on one split, such as the store's `Evaluation`."""

    @property
    def key(self) -> str:
        """Its identity, as `trial.row_key` returns it."""

    @property
    def name(self) -> str:
        """What reports call it."""

    @property
    def kind(self) -> str:
        """`base`, `expert`, `baseline`, `finalist` or `winner`."""

    @property
    def split(self) -> Split:
        """Of the items."""

    @property
    def outcome(self) -> Outcome:
        """Its scores, or why there are none."""


_SAYS_NOTHING = {FailureKind.OUT_OF_MEMORY, FailureKind.TASK, FailureKind.WORKER}
"""Failures that say nothing of the model; one that cannot be merged, or collapses, is surely not the best."""


@dataclass(frozen=True)
class References:
    """Parents and naive merges on one split; those that failed are left out.

    Attributes:
        base: The base's outcome; None where it has none.
        experts: Name → outcome.
        baselines: Name → outcome.
        unscored: `base`, `expert`, `baseline`: kinds of which one could not be scored for lack of memory, a
            task or a worker, so the best of them is unknown.
    """

    base: Outcome | None = None
    experts: Mapping[str, Outcome] = field(default_factory=dict)
    baselines: Mapping[str, Outcome] = field(default_factory=dict)
    unscored: frozenset[str] = frozenset()

    @classmethod
    def of(cls, evaluations: Iterable[Recorded], split: Split) -> References:
        """Pick the references of a split out of everything that was recorded."""
        base: Outcome | None = None
        found: dict[str, dict[str, Outcome]] = {"expert": {}, "baseline": {}}
        unscored = set()
        for one in evaluations:
            if one.split != split:
                continue
            if one.outcome.failure is not None:
                if one.outcome.failure.kind in _SAYS_NOTHING:
                    unscored.add(one.kind)
            elif one.kind == "base":
                base = one.outcome
            elif one.kind in found:
                found[one.kind][one.name] = one.outcome
        return cls(base, found["expert"], found["baseline"], frozenset(unscored))

    def best(self, of: Reference, task: str, metric: str, *, higher: bool) -> TaskScores | None:
        """Return the scores on a task of the model that is best by this metric; None: none has a number."""
        known = [
            scores
            for outcome in self._outcomes(of)
            if (scores := outcome.scores.get(task)) is not None
            and metric in scores.values
            and math.isfinite(scores.values[metric].value)
        ]
        sign = 1.0 if higher else -1.0
        return max(known, key=lambda scores: sign * scores.values[metric].value, default=None)

    def reference(
        self, of: Reference, task: str, metric: str, *, higher: bool
    ) -> TaskScores | None:
        """Return what `best` does; None also where a model that was not scored might be better."""
        kind = of.removeprefix("best_")
        return None if kind in self.unscored else self.best(of, task, metric, higher=higher)

    def best_value(self, of: Reference, task: str, metric: str, *, higher: bool) -> float | None:
        """Return that model's value."""
        found = self.best(of, task, metric, higher=higher)
        return None if found is None else found.values[metric].value

    def _outcomes(self, of: Reference) -> tuple[Outcome, ...]:
        if of == "base":
            return () if self.base is None else (self.base,)
        return tuple((self.experts if of == "best_expert" else self.baselines).values())


def value_on(scores: TaskScores, metric: str, items: Sequence[str]) -> float:
    """Return a model's value on some of its items, for a comparison with who was scored on no more.

    Args:
        scores: Of a task.
        metric: One of its metrics.
        items: Ids; all of the model's own items, or a part of them.

    Returns:
        The mean over `items`; the value over all where the metric is not a mean, or an item is missing.
    """
    whole = scores.values[metric].value
    values = scores.metrics.get(metric, ())
    known = dict(zip(scores.items, values, strict=False))
    if len(items) >= len(scores.items) or not items or not all(item in known for item in items):
        return whole
    if not all(isinstance(value, bool | int | float) for value in values):
        return whole
    mean = math.fsum(values) / len(values)
    if not math.isclose(mean, whole, rel_tol=1e-6, abs_tol=1e-9):
        return whole
    return math.fsum(known[item] for item in items) / len(items)
