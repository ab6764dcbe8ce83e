"""Workers as Ray actors: on this machine or on a cluster, the same code.

A worker that dies is replaced and its job given to the new one; a job that takes several workers with
it becomes a failure. Workers load their models while the driver goes on.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

from evomerge.errors import EvomergeError
from evomerge.trial import Failure, FailureKind, Job, Outcome
from evomerge.workers.cluster import Cluster
from evomerge.workers.pool import Build, Evaluates

RETRIES = 2
"""How often a job whose worker died is given to another one."""


class Worker:
    """What runs in an actor's process."""

    def __init__(self, build: Build) -> None:
        self._evaluator: Evaluates | None = None
        self._error: EvomergeError | None = None
        try:
            self._evaluator = build()
        except EvomergeError as error:
            self._error = error

    def evaluate(self, job: Job) -> Outcome | EvomergeError:
        """Evaluate a job, or say why this worker could not start."""
        if self._evaluator is not None:
            return self._evaluator.evaluate(job)
        return self._error or EvomergeError("a worker has no evaluator")


@dataclass(frozen=True)
class _Flight:
    job: Job
    actor: Any
    attempt: int


class RayPool:
    """A pool of actors.

    Args:
        build: Builds a worker's evaluator, in the worker.
        count: Workers; `auto`: as many as the machine or cluster holds.
        cpus: Cores of each.
        gpus: GPUs of each, fractions too.
        address: A Ray cluster to join; None: this machine.

    Raises:
        CampaignError: There is no room for the workers.
        EvomergeError: Ray cannot be started or reached.
    """

    def __init__(
        self,
        build: Build,
        *,
        count: int | Literal["auto"],
        cpus: float = 1,
        gpus: float = 0,
        address: str | None = None,
    ) -> None:
        self._cluster = Cluster(count=count, cpus=cpus, gpus=gpus, address=address)
        import ray

        self._ray = ray
        self._build = ray.put(build)
        self._actor_class = ray.remote(Worker).options(
            num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_task_retries=0
        )
        self._idle = [self._new_actor() for _ in range(self._cluster.count)]
        self._size = len(self._idle)
        self._flying: dict[Any, _Flight] = {}
        self._closed = False

    @property
    def size(self) -> int:
        """How many jobs may be in flight at once."""
        return self._size

    @property
    def free(self) -> int:
        """How many more jobs may be submitted now; a worker that is still loading takes one too."""
        return len(self._idle)

    def submit(self, job: Job) -> None:
        """Give a job to an idle worker."""
        if not self._idle:
            raise ValueError("every worker is busy; take a finished job with next first")
        self._send(job, self._idle.pop(0), attempt=0)

    def next(self, timeout: float | None = None) -> tuple[Job, Outcome]:
        """Wait for the first job to finish, through deaths of workers."""
        if not self._flying:
            raise ValueError("no job is in flight")
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if end is None else max(0.0, end - time.monotonic())
            ready, _ = self._ray.wait(list(self._flying), num_returns=1, timeout=left)
            if not ready:
                raise TimeoutError(f"no job finished within {timeout:g} s")
            flight = self._flying.pop(ready[0])
            outcome = self._outcome(ready[0], flight)
            if outcome is not None:
                return flight.job, outcome

    def close(self, *, force: bool = False) -> None:
        """Let the workers go."""
        if self._closed:
            return
        self._closed = True
        if self._flying and not force:
            self._ray.wait(list(self._flying), num_returns=len(self._flying))
        for actor in [*self._idle, *(flight.actor for flight in self._flying.values())]:
            self._ray.kill(actor, no_restart=True)
        self._idle, self._flying = [], {}
        self._cluster.close()

    def _outcome(self, reference: Any, flight: _Flight) -> Outcome | None:  # noqa: ANN401 - a Ray reference
        """Return what came of a flight that ended, None if its job is in flight again."""
        exceptions = self._ray.exceptions
        try:
            result = self._ray.get(reference)
        except exceptions.RayTaskError as error:
            self._idle.append(flight.actor)
            return Outcome(
                failure=Failure(FailureKind.WORKER, f"{type(error.cause).__name__}: {error.cause}")
            )
        except exceptions.RayError as error:
            return self._after_death(flight, error)
        self._idle.append(flight.actor)
        if isinstance(result, EvomergeError):
            raise result
        return result  # type: ignore[no-any-return]

    def _after_death(self, flight: _Flight, error: Any) -> Outcome | None:  # noqa: ANN401 - a RayError
        """Replace a dead worker; try its job again, or give it up."""
        if getattr(error, "actor_init_failed", False):
            self._size -= 1
            raise EvomergeError(f"a worker cannot start: {_last_line(error)}")
        self._ray.kill(flight.actor, no_restart=True)
        actor = self._new_actor()
        if flight.attempt < RETRIES:
            self._send(flight.job, actor, flight.attempt + 1)
            return None
        self._idle.append(actor)
        out_of_memory = isinstance(error, self._ray.exceptions.OutOfMemoryError)
        kind = FailureKind.OUT_OF_MEMORY if out_of_memory else FailureKind.WORKER
        reason = f"{flight.attempt + 1} workers died of it, the last one: {_why(error)}"
        return Outcome(failure=Failure(kind, reason))

    def _send(self, job: Job, actor: Any, attempt: int) -> None:  # noqa: ANN401 - a Ray actor
        self._flying[actor.evaluate.remote(job)] = _Flight(job, actor, attempt)

    def _new_actor(self) -> Any:  # noqa: ANN401 - a Ray actor
        return self._actor_class.remote(self._build)


def _last_line(error: Exception) -> str:
    """Return the exception's own line of a remote traceback."""
    lines = [line for line in str(error).splitlines() if line and not line[0].isspace()]
    return lines[-1] if lines else type(error).__name__


def _why(error: Exception) -> str:
    """Return what Ray says of a death, in short."""
    text = " ".join(str(error).split())
    for start in ("Worker exit detail: ", "cause: "):
        text = text.partition(start)[2] or text
    return text[:200]
