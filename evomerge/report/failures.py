"""Why candidates failed: failures that differ in numbers only are one, with how often and where."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from evomerge.candidate.trial import Failure, FailureKind, Split

if TYPE_CHECKING:
    from evomerge.store import Evaluation, Store, StoredGradient, StoredTrial

NAMED = 3
"""At most so many examples in a sentence."""


@dataclass(frozen=True)
class FailureGroup:
    """Failures of one kind whose reasons differ in numbers only.

    Attributes:
        kind: As recorded, such as `out of memory`.
        reason: Of the first one.
        count: How many evaluations and gradients failed so.
        rows: What failed, each once, by name: `trial 3`, `descent 0, step 2`.
        splits: On which items.
        traceback: Of the first one that has one; else empty.
    """

    kind: str
    reason: str
    count: int
    rows: tuple[str, ...]
    splits: tuple[Split, ...]
    traceback: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts and lists."""
        return {**asdict(self), "rows": list(self.rows), "splits": list(self.splits)}

    def sentence(self) -> str:
        """Say how often, why, and for example which candidates."""
        times = "once" if self.count == 1 else f"{self.count} times"
        return f"failed {times}, {self.kind}: {self.reason} ({_few(self.rows, ', ')})"


def failures_of(
    trials: Sequence[StoredTrial],
    evaluations: Sequence[Evaluation],
    steps: Sequence[StoredGradient],
) -> tuple[FailureGroup, ...]:
    """Group all failures of a study, the most frequent first."""
    found: list[tuple[str, Split, Failure]] = [
        (trial.entry.name, "search", trial.outcome.failure)
        for trial in trials
        if trial.outcome is not None and trial.outcome.failure is not None
    ]
    for one in evaluations:
        if one.outcome.failure is not None:
            found.append((one.name, one.split, one.outcome.failure))
    for step in steps:
        if step.failure is not None:
            kind, _, reason = step.failure.partition(": ")
            failure = Failure(FailureKind(kind), reason, step.failure_trace)
            found.append((f"descent {step.descent}, step {step.step}", "search", failure))
    groups: dict[tuple[str, str], list[tuple[str, Split, Failure]]] = {}
    for row in found:
        alike = re.sub(r"\d+([.,]\d+)*", "#", row[2].reason)
        groups.setdefault((row[2].kind, alike), []).append(row)
    return tuple(
        FailureGroup(
            kind=str(group[0][2].kind),
            reason=group[0][2].reason,
            count=len(group),
            rows=tuple(dict.fromkeys(name for name, _, _ in group)),
            splits=tuple(dict.fromkeys(split for _, split, _ in group)),
            traceback=next((failure.trace for *_, failure in group if failure.trace), ""),
        )
        for group in sorted(groups.values(), key=len, reverse=True)
    )


def failure_notes(groups: Sequence[FailureGroup]) -> list[str]:
    """Say each group in a sentence, and where tracebacks stand."""
    notes = [group.sentence() for group in groups]
    if any(group.traceback for group in groups):
        notes.append(
            "tracebacks: under `failures` in what evomerge report DIR --format json prints"
        )
    return notes


def why_nothing_scored(store: Store) -> str:
    """Return the most frequent failures as the end of a sentence; empty where nothing failed."""
    groups = failures_of(store.trials(), store.evaluations(), store.gradient_steps())
    if not groups:
        return ""
    reasons = _few([group.sentence() for group in groups], "; ")
    return f": {reasons}; for tracebacks: evomerge report {store.folder} --format json"


def _few(texts: Sequence[str], separator: str) -> str:
    more = f"{separator}and {len(texts) - NAMED} more" if len(texts) > NAMED else ""
    return separator.join(texts[:NAMED]) + more
