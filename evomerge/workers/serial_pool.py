"""One worker, in this process: for tests, debugging, and `--workers 0`."""

from __future__ import annotations

from evomerge.workers.pool import Answer, Build, Work, answer


class SerialPool:
    """A pool of one that works while `next` waits, and so in the order of submission.

    Args:
        build: Builds the evaluator, at once.

    Raises:
        EvomergeError: The evaluator cannot be built.
    """

    def __init__(self, build: Build) -> None:
        self._evaluator = build()
        self._work: Work | None = None

    @property
    def size(self) -> int:
        """One."""
        return 1

    @property
    def free(self) -> int:
        """One, or none while work waits."""
        return int(self._work is None)

    def wait_ready(self) -> None:
        """It is."""

    def submit(self, work: Work) -> None:
        """Keep work until `next`."""
        if self._work is not None:
            raise ValueError("every worker is busy; take a finished job with next first")
        self._work = work

    def next(self, timeout: float | None = None) -> tuple[Work, Answer]:
        """Do the work; the time-out does not apply."""
        if self._work is None:
            raise ValueError("no job is in flight")
        work = self._work
        found = answer(self._evaluator, work)
        self._work = None
        return work, found

    def close(self, *, force: bool = False) -> None:
        """Forget the work."""
        self._work = None
