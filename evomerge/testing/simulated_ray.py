"""Ray as a pool sees it, in virtual time: workers of unlike speed that die, nodes that leave and join.

`evomerge.workers.RayPool` runs on it unchanged, with all that it does about deaths, so what is simulated is
what Ray and its nodes do, and nothing of evomerge.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from random import Random
from types import SimpleNamespace
from typing import Any, cast

from evomerge.candidate.states import StatesFound
from evomerge.candidate.trial import Outcome, Outcomes
from evomerge.testing.simulated_nodes import Node, SimulatedWorkers, VirtualClock, WorkerSlot
from evomerge.workers.cluster import Cluster
from evomerge.workers.pool import Answer, Build, Evaluates, Work, answer
from evomerge.workers.ray_pool import RayPool, Runtime


@dataclass(eq=False)
class _Reference:
    """What comes of a call to an actor."""

    actor: _Actor
    value: Any = None
    error: Exception | None = None


class _Actor:
    """What `ray.remote(Worker).options(...).remote(...)` returns."""

    def __init__(self, ray: SimulatedRay) -> None:
        self.ready = SimpleNamespace(remote=partial(ray.begin, self))
        self.answer = SimpleNamespace(remote=partial(ray.work, self))
        self.slot: WorkerSlot | None = None
        self.evaluator: Evaluates | None = None
        self.pending: list[_Reference] = []
        self.dead = False


class DiedError(Exception):
    """In the place of Ray's own: the worker or its node is gone."""


class SimulatedRay:
    """The functions of `ray` that a pool calls, in its process.

    Args:
        workers: What there is.
        clock: By which it goes.
        seed: Of everything that happens by chance.

    Attributes:
        slots: Where workers are; each has one at a time.
        deaths: Workers that died at their work.
        departures: Nodes that left.
        given: When work was last given to a worker.
    """

    exceptions = SimpleNamespace(
        RayError=DiedError,
        RayTaskError=type("RayTaskError", (DiedError,), {}),
        OutOfMemoryError=type("OutOfMemoryError", (DiedError,), {}),
    )

    def __init__(self, workers: SimulatedWorkers, clock: VirtualClock, seed: int = 0) -> None:
        self._workers, self._clock = workers, clock
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._numbers = count()
        self._landed: dict[_Reference, None] = {}
        self._unplaced: deque[_Actor] = deque()
        self._free: list[int] = []
        self._chance = Random(f"{seed}, deaths")
        self.deaths = self.departures = 0
        self.given = 0.0
        self.slots: list[WorkerSlot] = []
        self._nodes: list[Node] = []
        for number in range(math.ceil(workers.count / workers.per_node)):
            self._nodes.append(Node(number, Random(f"{seed}, node {number}")))
        for number in range(workers.count):
            node = self._nodes[number // workers.per_node]
            speed = workers.speeds[number % len(workers.speeds)]
            self.slots.append(WorkerSlot(number, speed, node))
            node.slots.append(self.slots[-1])
        for node in self._nodes:
            self._join(node, 0.0)

    def busy(self, until: float) -> list[float]:
        """Return, of each worker, the share of the time that its node was there in which it had work."""
        there = [slot.node.there.until(until) for slot in self.slots]
        working = [slot.working.until(until) for slot in self.slots]
        return [part / whole if whole else 0.0 for part, whole in zip(working, there, strict=True)]

    def remote(self, worker: object) -> SimpleNamespace:
        """Return what makes actors, whatever runs in them."""
        maker = SimpleNamespace(remote=lambda prepare: self._create())
        return SimpleNamespace(options=lambda **resources: maker)

    def wait(
        self,
        references: Sequence[_Reference],
        *,
        num_returns: int = 1,
        timeout: float | None = None,
    ) -> tuple[list[_Reference], list[_Reference]]:
        """Wait for the first of `references`, which are all that is pending, or until the time is over."""
        end = math.inf if timeout is None else self._clock.monotonic() + timeout
        self._catch_up()
        while len(self._landed) < num_returns:
            if not self._events or self._events[0][0] > end:
                self._clock.reach(end)
                break
            self._step()
        ready = list(self._landed)[:num_returns]
        for one in ready:
            del self._landed[one]
        return ready, []

    def get(self, reference: _Reference) -> object:
        """Return what came of a call, or raise."""
        if reference.error is not None:
            raise reference.error
        return reference.value

    def kill(self, actor: _Actor, *, no_restart: bool) -> None:
        """End a worker; nothing comes of its calls."""
        actor.pending.clear()
        for reference in [one for one in self._landed if one.actor is actor]:
            del self._landed[reference]
        self._end(actor, self._clock.monotonic())

    def begin(self, actor: _Actor, build: Build) -> _Reference:
        """Let a worker start, once it has a place."""
        reference = _Reference(actor)
        if actor.dead:
            return self._failed(reference)
        actor.pending.append(reference)
        if actor.evaluator is None:
            with self._clock.stopped():
                actor.evaluator = build()
            if actor.slot is not None:
                self._after(self._workers.start, partial(self._land, reference, None))
        else:
            self._after(0.0, partial(self._land, reference, None))
        return reference

    def work(self, actor: _Actor, work: Work) -> _Reference:
        """Give work to a worker, which may die of it."""
        reference = _Reference(actor)
        if actor.dead or actor.slot is None or actor.evaluator is None:
            return self._failed(reference)
        actor.pending.append(reference)
        with self._clock.stopped():
            found = answer(actor.evaluator, work)
        now = actor.slot.working.since = self.given = self._clock.monotonic()
        found = _by(actor.slot, found, now)
        seconds = found.cost.score_seconds
        rate = self._workers.deaths / 3600
        left = self._chance.expovariate(rate) if rate else math.inf
        if left < seconds:
            self._after(left, partial(self._die, actor))
        else:
            self._after(seconds, partial(self._land, reference, found))
        return reference

    def room(self) -> int:
        """Return how many workers the nodes hold that are there now."""
        self._catch_up()
        return sum(len(node.slots) for node in self._nodes if node.up)

    def has_lost(self, name: str) -> bool:
        """Tell whether a node is gone, by its id."""
        return all(node.name != name or not node.up for node in self._nodes)

    def _catch_up(self) -> None:
        """Let happen what is due: the driver may have been busy meanwhile."""
        while self._events and self._events[0][0] <= self._clock.monotonic():
            self._step()

    def _step(self) -> None:
        when, _, happen = heapq.heappop(self._events)
        self._clock.reach(when)
        happen(when)

    def _after(self, seconds: float, happen: Callable[[float], None]) -> None:
        self._at(self._clock.monotonic() + seconds, happen)

    def _at(self, when: float, happen: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), happen))

    def _create(self) -> _Actor:
        actor = _Actor(self)
        self._unplaced.append(actor)
        self._place(self._clock.monotonic())
        return actor

    def _place(self, when: float) -> None:
        while self._unplaced and self._free:
            if self._unplaced[0].dead:
                self._unplaced.popleft()
                continue
            slot = self.slots[heapq.heappop(self._free)]
            if slot.actor is not None or not slot.node.up:
                continue
            actor = self._unplaced.popleft()
            actor.slot, slot.actor = slot, actor
            for reference in actor.pending:
                self._at(when + self._workers.start, partial(self._land, reference, None))

    def _land(self, reference: _Reference, found: Answer | None, when: float) -> None:
        """Let a call come back, unless its worker is gone; None: the worker has started."""
        actor = reference.actor
        if reference not in actor.pending or actor.slot is None:
            return
        actor.pending.remove(reference)
        if found is not None:
            actor.slot.working.end(when)
        reference.value = actor.slot.node.name if found is None else found
        self._landed[reference] = None

    def _failed(self, reference: _Reference) -> _Reference:
        reference.error = DiedError("the worker is gone")
        self._landed[reference] = None
        return reference

    def _die(self, actor: _Actor, when: float) -> None:
        self.deaths += not actor.dead
        self._end(actor, when)

    def _end(self, actor: _Actor, when: float) -> None:
        actor.dead = True
        for reference in actor.pending:
            self._failed(reference)
        actor.pending.clear()
        slot, actor.slot = actor.slot, None
        if slot is not None:
            slot.working.end(when)
            slot.actor = None
            self._release(slot)
            self._place(when)

    def _release(self, slot: WorkerSlot) -> None:
        if slot.node.up:
            heapq.heappush(self._free, slot.number)

    def _join(self, node: Node, when: float) -> None:
        node.there.since = when
        node.joined += 1
        if self._workers.departures:
            stay = node.chance.expovariate(self._workers.departures / 3600)
            self._at(when + stay, partial(self._leave, node))
        for slot in node.slots:
            self._release(slot)
        self._place(when)

    def _leave(self, node: Node, when: float) -> None:
        node.there.end(when)
        self.departures += 1
        for slot in node.slots:
            if slot.actor is not None:
                self._end(slot.actor, when)
        away = node.chance.expovariate(1 / self._workers.absence)
        self._at(when + away, partial(self._join, node))


class SimulatedCluster(Cluster):
    """The nodes of a `SimulatedRay`."""

    def __init__(self, ray: SimulatedRay) -> None:
        self._simulated, self.count = ray, len(ray.slots)

    def room(self) -> int:
        """Return how many workers there should be now."""
        return self._simulated.room()

    def has_lost(self, node: str) -> bool:
        """Return whether a node is gone."""
        return self._simulated.has_lost(node)

    def close(self) -> None:
        """Nothing runs."""


def simulated_pool(
    build: Build, ray: SimulatedRay, clock: VirtualClock, *, ordered: bool = False
) -> RayPool:
    """Return a pool of workers that do not exist.

    Args:
        build: What answers the work, at once and in this process; seconds of scoring in an answer's cost
            are how long a worker of speed 1 takes.
        ray: Its workers.
        clock: Of `ray`.
        ordered: As in `RayPool`.
    """
    runtime = Runtime(SimulatedCluster(ray), ray, clock)
    return RayPool(build, count=len(ray.slots), ordered=ordered, runtime=runtime)


def _by(slot: WorkerSlot, found: Answer, now: float) -> Answer:
    """Return an answer as a worker gives it that began now."""
    if isinstance(found, Outcomes):
        each = tuple(cast("Outcome", _by(slot, one, now)) for one in found.each)
        return replace(found, each=each)
    seconds = found.cost.score_seconds / slot.speed
    cost = replace(found.cost, score_seconds=seconds, began=now)
    if isinstance(found, StatesFound):
        return replace(found, cost=cost)
    return replace(found, cost=cost, worker=f"worker {slot.number}" if found.worker else "")
