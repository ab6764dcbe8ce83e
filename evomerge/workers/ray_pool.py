"""Workers as Ray actors: on this machine or on a cluster, the same code.

A worker that dies is replaced where there is room for another one, and its work goes to whichever is
idle first; work that takes several workers with it becomes a failure. Nodes may join and leave. Workers
load their models while the driver goes on.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from evomerge.candidate.trial import Failure, FailureKind
from evomerge.errors import EvomergeError
from evomerge.workers.cluster import Cluster
from evomerge.workers.pool import Answer, Build, Evaluates, Work, answer, failed
from evomerge.workers.transfer import Transfer, start_transfer

RETRIES = 2
"""How often work whose worker died is given to another one."""
SECONDS_BETWEEN_LOOKS = 3.0
"""At the cluster's nodes."""
SECONDS_WITHOUT_WORKERS = 600.0
"""After so long without a single node, the pool gives up."""


class Runtime(NamedTuple):
    """What a pool runs on: Ray, and the clock that both go by; `evomerge.testing` simulates all three.

    Attributes:
        cluster: The nodes.
        ray: The module.
        clock: `monotonic` and `sleep`, as the module `time` has them.
    """

    cluster: Cluster
    ray: Any
    clock: Any


class Worker:
    """What runs in an actor's process.

    Args:
        prepare: Called at once, before the driver knows what to build, such as to import libraries.
    """

    def __init__(self, prepare: Callable[[], object] | None) -> None:
        self._evaluator: Evaluates | None = None
        if prepare is not None:
            prepare()

    def ready(self, build: Build) -> str | EvomergeError:
        """Build the evaluator, once; return the id of the worker's node, or say why it cannot start."""
        import ray

        try:
            self._evaluator = self._evaluator or build()
        except EvomergeError as error:
            return error
        node: str = ray.get_runtime_context().get_node_id()
        return node

    def forget(self) -> None:
        """Let the evaluator go: another one will be built."""
        self._evaluator = None

    def answer(self, work: Work) -> Answer:
        """Do the work; a worker whose GPU is lost dies, so that another one takes its place and the work."""
        from evomerge.workers.failures import DeviceLost  # torch: the driver does not wait for it

        assert self._evaluator is not None, "not ready"
        try:
            return answer(self._evaluator, work)
        except DeviceLost:
            os._exit(1)


@dataclass(frozen=True)
class _Actor:
    handle: Any
    node: str | None = None
    """None until it has started."""


@dataclass(frozen=True)
class _Task:
    order: int
    work: Work
    deaths: int = 0


class RayPool:
    """A pool of actors.

    Args:
        build: Builds a worker's evaluator, in the worker; None: `begin` will say.
        count: Workers; `auto`: as many as the machine or cluster holds, as it grows and shrinks.
        cpus: Cores of each.
        gpus: GPUs of each, fractions too.
        address: A Ray cluster to join; None: this machine.
        retries: How often work whose worker died is given to another one. Work on a node that left is
            not counted.
        ordered: Hand work back in the order of submission. What waits for its turn counts as running,
            so that what is submitted when depends on nothing but that order.
        transfer: Folders that a node may lack.
        prepare: What a worker does before it is told what to build; picklable.
        runtime: What it runs on; None: Ray, started or joined.

    Raises:
        CampaignError: The workers do not fit.
        EvomergeError: Ray cannot be started or reached.
    """

    def __init__(
        self,
        build: Build | None = None,
        *,
        count: int | Literal["auto"],
        cpus: float = 1,
        gpus: float = 0,
        address: str | None = None,
        retries: int = RETRIES,
        ordered: bool = False,
        transfer: Transfer | None = None,
        prepare: Callable[[], object] | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        if runtime is None:
            cluster = Cluster(count=count, cpus=cpus, gpus=gpus, address=address)
            import ray

            runtime = Runtime(cluster, ray, time)
        self._cluster, self._ray, self._clock = runtime
        self._retries, self._ordered = retries, ordered
        self._transfer: Any = None
        self._build: Build | None = None
        self._prepare = prepare
        self._actor_class = self._ray.remote(Worker).options(
            num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_task_retries=0
        )
        self._starting: dict[Any, _Actor] = {}
        self._idle: deque[_Actor] = deque()
        self._running: dict[Any, tuple[_Task, _Actor]] = {}
        self._queue: deque[_Task] = deque()
        self._done: dict[int, tuple[Work, Answer]] = {}
        self._submitted = self._returned = self._deaths_at_start = 0
        self._looked = self._last_seen = self._clock.monotonic()
        self._closed = False
        self._unbuilt = [self._create() for _ in range(self._cluster.count)]
        if build is not None:
            self.begin(build, transfer)

    def begin(self, build: Build, transfer: Transfer | None = None) -> None:
        """Let the workers build evaluators, each when it is prepared.

        Called again, while no work is running, they build others in the place of those that they have.
        """
        for actor in (*self._idle, *self._starting.values()):
            actor.handle.forget.remote()
            self._unbuilt.append(actor)
        self._idle, self._starting = deque(), {}
        self._end_transfer()
        self._transfer = None if transfer is None else start_transfer(transfer)
        self._build = build
        self._looked = self._last_seen = self._clock.monotonic()
        while self._unbuilt:
            self._begin(self._unbuilt.pop())

    def wait_ready(self) -> None:
        """Wait until a worker is ready, so that what comes next is timed without its start."""
        while not self._idle:
            self._look()
            self._wait(SECONDS_BETWEEN_LOOKS)

    @property
    def size(self) -> int:
        """How many jobs may be submitted at once; a worker that is still loading counts."""
        return len(self._starting) + len(self._idle) + len(self._running)

    @property
    def free(self) -> int:
        """How much more work may be submitted now."""
        return max(0, self.size - self._in_flight)

    def submit(self, work: Work) -> None:
        """Give work to whichever worker is idle first."""
        if not self.free:
            raise ValueError("every worker is busy; take a finished job with next first")
        self._queue.append(_Task(self._submitted, work))
        self._submitted += 1
        self._dispatch()

    def next(self, timeout: float | None = None) -> tuple[Work, Answer]:
        """Wait for work to finish, through deaths of workers."""
        if not self._in_flight:
            raise ValueError("no job was submitted")
        end = None if timeout is None else self._clock.monotonic() + timeout
        found = self._take()
        while found is None:
            self._look()
            left = SECONDS_BETWEEN_LOOKS
            if end is not None:
                left = min(left, max(0.0, end - self._clock.monotonic()))
            self._wait(left)
            found = self._take()
            if found is None and end is not None and self._clock.monotonic() >= end:
                raise TimeoutError(f"no job finished within {timeout:g} s")
        return found

    def close(self, *, force: bool = False) -> None:
        """Let the workers go."""
        if self._closed:
            return
        self._closed = True
        if self._running and not force:
            self._ray.wait(list(self._running), num_returns=len(self._running))
        running = [actor for _, actor in self._running.values()]
        for actor in [*self._unbuilt, *self._idle, *self._starting.values(), *running]:
            self._kill(actor)
        self._end_transfer()
        self._starting, self._idle, self._running = {}, deque(), {}
        self._queue, self._done = deque(), {}
        self._cluster.close()

    def _end_transfer(self) -> None:
        if self._transfer is not None:
            self._ray.kill(self._transfer, no_restart=True)

    @property
    def _in_flight(self) -> int:
        return len(self._queue) + len(self._running) + len(self._done)

    def _take(self) -> tuple[Work, Answer] | None:
        order = self._returned if self._ordered else next(iter(self._done), -1)
        found = self._done.pop(order, None)
        self._returned += found is not None
        return found

    def _look(self) -> None:
        """Have as many workers as the cluster holds by now, if it was not looked at lately."""
        if self._clock.monotonic() - self._looked >= SECONDS_BETWEEN_LOOKS:
            self._match_cluster()

    def _wait(self, seconds: float) -> None:
        """Take note of everything that ended or started; wait for the first such thing."""
        references = [
            *self._starting,
            *self._running,
        ]  # those that begin first, else the oldest work
        if not references:
            self._wait_for_a_node(seconds)
            return
        self._last_seen = self._clock.monotonic()
        ready, _ = self._ray.wait(references, timeout=seconds)
        for reference in ready:
            if reference in self._running:
                self._landed(reference, *self._running.pop(reference))
            elif reference in self._starting:  # and was not let go meanwhile
                self._started(reference, self._starting.pop(reference))
        self._dispatch()

    def _wait_for_a_node(self, seconds: float) -> None:
        if self._clock.monotonic() - self._last_seen > SECONDS_WITHOUT_WORKERS:
            raise EvomergeError(
                f"every node left the cluster, and none came within {SECONDS_WITHOUT_WORKERS:g} s"
            )
        self._clock.sleep(seconds)

    def _landed(self, reference: Any, task: _Task, actor: _Actor) -> None:  # noqa: ANN401 - Ray's
        exceptions = self._ray.exceptions
        try:
            found: Answer = self._ray.get(reference)
        except exceptions.RayTaskError as error:
            reason = f"{type(error.cause).__name__}: {error.cause}"
            found = failed(task.work, Failure(FailureKind.WORKER, reason, str(error)))
        except exceptions.RayError as error:
            self._after_death(task, actor, error)
            return
        self._idle.append(actor)
        self._done[task.order] = (task.work, found)

    def _started(self, reference: Any, actor: _Actor) -> None:  # noqa: ANN401 - a Ray reference
        try:
            node: str | EvomergeError = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            broken = isinstance(error, self._ray.exceptions.RayTaskError)
            if broken or getattr(error, "actor_init_failed", False):
                raise EvomergeError(f"a worker cannot start: {_last_line(error)}") from None
            self._deaths_at_start += actor.node is None
            if self._deaths_at_start > self._retries + self._cluster.count:
                raise EvomergeError(
                    f"workers die while they start, the last one: {_why(error)}"
                ) from None
            self._replace(actor)
            return
        if isinstance(node, EvomergeError):
            raise node
        self._deaths_at_start = 0
        self._idle.append(replace(actor, node=node))

    def _after_death(self, task: _Task, actor: _Actor, error: Any) -> None:  # noqa: ANN401 - a RayError
        """Give a dead worker's work to another one, or give it up."""
        assert actor.node is not None
        deaths = task.deaths + (not self._cluster.has_lost(actor.node))
        if deaths <= self._retries:
            self._queue.appendleft(replace(task, deaths=deaths))
        else:
            out_of_memory = isinstance(error, self._ray.exceptions.OutOfMemoryError)
            kind = FailureKind.OUT_OF_MEMORY if out_of_memory else FailureKind.WORKER
            reason = f"{deaths} workers died of it, the last one: {_why(error)}"
            self._done[task.order] = (task.work, failed(task.work, Failure(kind, reason)))
        while self._idle:  # no work may find out that these died, too
            self._begin(self._idle.popleft())
        self._replace(actor)

    def _replace(self, actor: _Actor) -> None:
        self._kill(actor)
        self._match_cluster()

    def _match_cluster(self) -> None:
        """Start workers where there is room, and let go those that wait for room which is gone."""
        self._looked = self._clock.monotonic()
        room = self._cluster.room()
        for _ in range(self.size, room):
            self._begin(self._create())
        unplaced = [ref for ref, actor in self._starting.items() if actor.node is None]
        for _ in range(room, self.size):
            if unplaced:
                self._kill(self._starting.pop(unplaced.pop()))

    def _dispatch(self) -> None:
        while self._queue and self._idle:
            task, actor = self._queue.popleft(), self._idle.popleft()
            self._running[actor.handle.answer.remote(task.work)] = (task, actor)

    def _create(self) -> _Actor:
        return _Actor(self._actor_class.remote(self._prepare))

    def _begin(self, actor: _Actor) -> None:
        assert self._build is not None, "begin comes first"
        self._starting[actor.handle.ready.remote(self._build)] = actor

    def _kill(self, actor: _Actor) -> None:
        self._ray.kill(actor.handle, no_restart=True)


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
