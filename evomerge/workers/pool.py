"""What the driver sees of its workers: submit work, take whichever finishes first. And the simplest pool.

Work is of seven kinds: a `Job`, which an `Outcome` answers, `Jobs`, which `Outcomes` answer, a `GradientJob`,
which `Gradients` answer, a `TargetJob`, which `TargetsFound` answer, a `WriteJob`, which `Written` answers, a
`StatesJob`, which `StatesFound` answer, and an `ActivationsJob`, which `ActivationsFound` answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from evomerge.candidate.activations import ActivationsFound, ActivationsJob
from evomerge.candidate.states import StatesFound, StatesJob
from evomerge.candidate.trial import (
    Failure,
    GradientJob,
    Gradients,
    Job,
    Jobs,
    Outcome,
    Outcomes,
    TargetJob,
    TargetsFound,
)
from evomerge.candidate.writing import WriteJob, Written

Work = Job | Jobs | GradientJob | TargetJob | WriteJob | StatesJob | ActivationsJob
Answer = Outcome | Outcomes | Gradients | TargetsFound | Written | StatesFound | ActivationsFound


class Evaluates(Protocol):
    """Whatever answers work."""

    def evaluate(self, job: Job) -> Outcome:
        """Evaluate; a candidate's failure is returned, never raised."""

    def together(self, jobs: Jobs) -> Outcomes:
        """Evaluate several candidates; what goes wrong with one is its own failure."""

    def gradient(self, job: GradientJob) -> Gradients:
        """Take a gradient; a failure is returned, never raised."""

    def targets(self, job: TargetJob) -> TargetsFound:
        """Let a teacher speak; a failure is returned, never raised."""

    def write(self, job: WriteJob) -> Written:
        """Continue prompts; a failure is returned, never raised."""

    def states(self, job: StatesJob) -> StatesFound:
        """Compare hidden states; a failure is returned, never raised."""

    def activations(self, job: ActivationsJob) -> ActivationsFound:
        """Take statistics of activations; a failure is returned, never raised."""


Build = Callable[[], Evaluates]
"""Builds a worker's evaluator, in the worker; picklable."""


class Pool(Protocol):
    """Workers, each busy with at most one piece of work.

    Work comes back in the order in which it finishes, or, from an ordered pool, in the order in which it
    was submitted.
    """

    @property
    def size(self) -> int:
        """How many jobs may be submitted at once; it changes as workers join and leave."""

    @property
    def free(self) -> int:
        """How much more work may be submitted now."""

    def wait_ready(self) -> None:
        """Wait until a worker is ready.

        Raises:
            EvomergeError: A worker cannot start; in its own words.
        """

    def submit(self, work: Work) -> None:
        """Give work to the workers.

        Raises:
            ValueError: None is free.
        """

    def next(self, timeout: float | None = None) -> tuple[Work, Answer]:
        """Wait for work to finish.

        Args:
            timeout: Seconds to wait; None: as long as it takes.

        Raises:
            EvomergeError: A worker cannot start; in its own words. Or every worker left, and none came.
            TimeoutError: Nothing finished in time.
            ValueError: Nothing was submitted.
        """

    def close(self, *, force: bool = False) -> None:
        """Let the workers go; harmless when called again.

        Args:
            force: At once, without waiting for running work.
        """


def answer(evaluator: Evaluates, work: Work) -> Answer:
    """Return an evaluator's answer to work of any kind."""
    if isinstance(work, Jobs):
        return evaluator.together(work)
    if isinstance(work, GradientJob):
        return evaluator.gradient(work)
    if isinstance(work, TargetJob):
        return evaluator.targets(work)
    if isinstance(work, StatesJob):
        return evaluator.states(work)
    if isinstance(work, ActivationsJob):
        return evaluator.activations(work)
    return evaluator.write(work) if isinstance(work, WriteJob) else evaluator.evaluate(work)


def failed(work: Work, failure: Failure) -> Answer:
    """Return the answer that says that work failed."""
    if isinstance(work, Jobs):
        return Outcomes(failure=failure)
    if isinstance(work, GradientJob):
        return Gradients(failure=failure)
    if isinstance(work, TargetJob):
        return TargetsFound((), failure)
    if isinstance(work, StatesJob):
        return StatesFound(failure=failure)
    if isinstance(work, ActivationsJob):
        return ActivationsFound(failure=failure)
    return (Written if isinstance(work, WriteJob) else Outcome)(failure=failure)


def in_turn(pool: Pool, work: Iterable[Work]) -> Iterator[tuple[Work, Answer]]:
    """Keep a pool busy with work that is known beforehand; yield each piece with its answer."""
    waiting, running = iter(work), 0
    while True:
        while pool.free and (one := next(waiting, None)) is not None:
            pool.submit(one)
            running += 1
        if not running:
            return
        yield pool.next()
        running -= 1


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
            raise ValueError("no job was submitted")
        work = self._work
        found = answer(self._evaluator, work)
        self._work = None
        return work, found

    def close(self, *, force: bool = False) -> None:
        """Forget the work."""
        self._work = None
