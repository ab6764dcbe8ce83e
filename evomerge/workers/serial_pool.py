"""One worker, in this process: for tests, debugging, and `--workers 0`."""

from __future__ import annotations

from evomerge.trial import Job, Outcome
from evomerge.workers.pool import Build


class SerialPool:
    """A pool of one that works while `next` waits.

    Args:
        build: Builds the evaluator, at once.

    Raises:
        EvomergeError: The evaluator cannot be built.
    """

    def __init__(self, build: Build) -> None:
        self._evaluator = build()
        self._job: Job | None = None

    @property
    def size(self) -> int:
        """One."""
        return 1

    @property
    def free(self) -> int:
        """One, or none while a job waits."""
        return int(self._job is None)

    def submit(self, job: Job) -> None:
        """Keep a job until `next`."""
        if self._job is not None:
            raise ValueError("every worker is busy; take a finished job with next first")
        self._job = job

    def next(self, timeout: float | None = None) -> tuple[Job, Outcome]:
        """Evaluate the job; the time-out does not matter, as there is nobody to wait for."""
        if self._job is None:
            raise ValueError("no job is in flight")
        job = self._job
        outcome = self._evaluator.evaluate(job)
        self._job = None
        return job, outcome

    def close(self, *, force: bool = False) -> None:
        """Forget the job."""
        self._job = None
