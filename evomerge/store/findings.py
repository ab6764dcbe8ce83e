"""What explanations of a winner found out: events of their own, not rows of the leaderboard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import xxhash

from evomerge.candidate import Candidate
from evomerge.candidate.trial import Job, Outcome, Split
from evomerge.store.encoding import Ids, outcome_from_json, outcome_to_json, values_to_json
from evomerge.store.events import EventLog

_SCORED, _FOUND = "ablated", "found"
"""Kinds of events."""


class Findings:
    """Outcomes of models by what they are, and other findings by key; of several the last holds.

    Args:
        log: The campaign's events.
        ids: Of the items of a split.
    """

    def __init__(self, log: EventLog, ids: Callable[[Split], Ids]) -> None:
        self._log, self._ids = log, ids

    def record(self, job: Job, outcome: Outcome) -> None:
        """Record what came of a model, durably."""
        ids = self._ids(job.split)
        candidate = job.entry.candidate
        with self._log.transaction():
            self._log.arrays.keep_all(candidate.arrays())
            content = {
                "name": job.entry.name,
                "candidate": candidate.text(),
                "outcome": outcome_to_json(outcome, ids),
            }
            key = _key(candidate, job.split, job.noise)
            self._log.append(_SCORED, content, key, values_to_json(outcome))

    def outcome(
        self, candidate: Candidate, split: Split, noise: int | None = None
    ) -> Outcome | None:
        """Return what came of a model on a split; None: it was not scored.

        `noise`: as of `Job`.
        """
        found = None
        for event in self._log.read(_SCORED, key=_key(candidate, split, noise)):
            values = partial(self._log.items, event.seq)
            arrays = self._log.arrays.get
            found = outcome_from_json(event.content["outcome"], self._ids(split), values, arrays)
        return found

    def keep(self, key: str, content: Mapping[str, Any]) -> None:
        """Record any other finding as JSON values, durably."""
        self._log.append(_FOUND, content, key)

    def get(self, key: str) -> dict[str, Any] | None:
        """Return what was kept under a key; None: nothing."""
        found = None
        for event in self._log.read(_FOUND, key=key):
            found = event.content
        return found


def digest(candidate: Candidate) -> str:
    """Return what tells a candidate from others, by its text."""
    return xxhash.xxh3_128_hexdigest(candidate.text().encode())


def _key(candidate: Candidate, split: Split, noise: int | None) -> str:
    as_noise = "" if noise is None else f" as noise {noise}"
    return f"{digest(candidate)}{as_noise} on {split}"
