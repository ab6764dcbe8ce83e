"""Why candidates failed: alike failures together, with how often and where."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from evomerge.trial import Failure, Split

if TYPE_CHECKING:
    from evomerge.store import Store

_NAMED = 3  # examples in a sentence


@dataclass(frozen=True)
class FailureGroup:
    """Failures of one kind whose reasons differ in numbers only.

    Attributes:
        kind: As recorded, such as `out of memory`.
        reason: That of the first one.
        rows: The names of what failed, each once, such as `trial 3`.
        splits: On which items.
        count: Number of evaluations that failed so.
        traceback: Of the first one that has one; else empty.
    """

    kind: str
    reason: str
    rows: tuple[str, ...]
    splits: tuple[Split, ...]
    count: int
    traceback: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts and lists."""
        return {**asdict(self), "rows": list(self.rows), "splits": list(self.splits)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FailureGroup:
        """Read back what `to_json` wrote."""
        return cls(**{**data, "rows": tuple(data["rows"]), "splits": tuple(data["splits"])})


def failures_of(store: Store) -> tuple[FailureGroup, ...]:
    """Group all failures of a study, those of a descent's steps too, the most frequent first."""
    groups: dict[tuple[str, str], list[_Found]] = {}
    for found in _failures(store):
        groups.setdefault((found.kind, _without_numbers(found.reason)), []).append(found)
    ordered = sorted(groups.values(), key=len, reverse=True)
    return tuple(
        FailureGroup(
            kind=group[0].kind,
            reason=group[0].reason,
            rows=tuple(dict.fromkeys(found.name for found in group)),
            splits=tuple(dict.fromkeys(found.split for found in group)),
            count=len(group),
            traceback=next((found.trace for found in group if found.trace), ""),
        )
        for group in ordered
    )


def failure_notes(groups: Sequence[FailureGroup]) -> list[str]:
    """Say each group in a sentence, and where its traceback stands."""
    notes = [_sentence(group) for group in groups]
    if any(group.traceback for group in groups):
        notes.append(
            "tracebacks of failures: under `failures` in what evomerge report DIR --format json prints"
        )
    return notes


def because(store: Store, folder: Path) -> str:
    """Return why nothing was scored, as the end of a sentence; empty where nothing failed."""
    groups = failures_of(store)
    if not groups:
        return ""
    reasons = "; ".join(_sentence(group) for group in groups[:_NAMED])
    more = f"; and {len(groups) - _NAMED} more kinds" if len(groups) > _NAMED else ""
    return f": {reasons}{more}; for tracebacks: evomerge report {folder} --format json"


def _sentence(group: FailureGroup) -> str:
    named = ", ".join(group.rows[:_NAMED])
    more = f" and {len(group.rows) - _NAMED} more" if len(group.rows) > _NAMED else ""
    times = "once" if group.count == 1 else f"{group.count} times"
    return f"failed {times}, {group.kind}: {group.reason} ({named}{more})"


class _Found(NamedTuple):
    name: str
    split: Split
    kind: str
    reason: str
    trace: str


def _failures(store: Store) -> Iterator[_Found]:
    for trial in store.trials():
        if trial.outcome is not None and trial.outcome.failure is not None:
            yield _of(trial.candidate.name, "search", trial.outcome.failure)
    for one in store.evaluations():
        if one.outcome.failure is not None:
            yield _of(one.name, one.split, one.outcome.failure)
    for step in store.slope_steps():
        if step.failure is not None:
            kind, _, reason = step.failure.partition(": ")
            name = f"descent {step.descent}, step {step.step}"
            yield _Found(name, "search", kind, reason, step.failure_trace)


def _of(name: str, split: Split, failure: Failure) -> _Found:
    return _Found(name, split, str(failure.kind), failure.reason, failure.trace)


def _without_numbers(reason: str) -> str:
    return re.sub(r"\d+([.,]\d+)*", "#", reason)
