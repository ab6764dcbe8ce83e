"""What the driver sees of its workers: submit a job, take whichever finishes first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from evomerge.trial import Job, Outcome


class Evaluates(Protocol):
    """Whatever turns a job into an outcome."""

    def evaluate(self, job: Job) -> Outcome:
        """Evaluate; a candidate's failure is returned, never raised."""


Build = Callable[[], Evaluates]
"""Builds a worker's evaluator, in the worker; picklable."""


class Pool(Protocol):
    """Workers, each busy with at most one job. Jobs come back in the order in which they finish."""

    @property
    def size(self) -> int:
        """How many jobs may be in flight at once."""

    @property
    def free(self) -> int:
        """How many more jobs may be submitted now."""

    def submit(self, job: Job) -> None:
        """Give a job to an idle worker.

        Raises:
            ValueError: None is idle.
        """

    def next(self, timeout: float | None = None) -> tuple[Job, Outcome]:
        """Wait for the first job to finish.

        Args:
            timeout: Seconds to wait; None: as long as it takes.

        Raises:
            EvomergeError: A worker cannot start; in its own words.
            TimeoutError: None finished in time.
            ValueError: No job is in flight.
        """

    def close(self, *, force: bool = False) -> None:
        """Let the workers go; harmless when called again.

        Args:
            force: At once, without waiting for the jobs in flight.
        """
