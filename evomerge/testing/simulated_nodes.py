"""Simulated workers and nodes, and the virtual clock that they go by."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any


@dataclass(frozen=True)
class SimulatedWorkers:
    """Workers that do not exist. What happens by chance is as likely at any time (exponential).

    Attributes:
        count: How many there are when every node is there.
        speeds: Worker n takes 1 / `speeds[n % len(speeds)]` of the stated seconds.
        start: Seconds until a new worker can work.
        deaths: How often an hour of work a worker's process dies, and what it was doing with it.
        per_node: Workers of one node.
        departures: How often an hour a node leaves, with its workers.
        absence: Mean seconds until a node that left joins again.
    """

    count: int = 8
    speeds: Sequence[float] = (1.0,)
    start: float = 0.0
    deaths: float = 0.0
    per_node: int = 8
    departures: float = 0.0
    absence: float = 600.0


class VirtualClock:
    """Seconds that pass when somebody waits, and while the driver works if that is charged.

    Args:
        charged: Seconds of the driver, such as `time.perf_counter`; None: it takes no time.

    Attributes:
        outside: Processor seconds spent on what no driver does: making up answers.
    """

    def __init__(self, charged: Callable[[], float] | None = None) -> None:
        self._charged = charged or (lambda: 0.0)
        self._skipped = -self._charged()
        self.outside = 0.0

    def monotonic(self) -> float:
        """Return the seconds since it was made."""
        return self._skipped + self._charged()

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self._skipped += seconds

    def reach(self, when: float) -> None:
        """Let time pass until then, if it is not later already."""
        self._skipped = max(self._skipped, when - self._charged())

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Charge nothing for the block."""
        start, began = self._charged(), time.process_time()
        yield
        self._skipped -= self._charged() - start
        self.outside += time.process_time() - began


@dataclass
class Spans:
    """When something was so: spans of virtual time, the last of which may be open.

    Attributes:
        closed: Beginnings and ends.
        since: When the open one began; None: none is.
    """

    closed: list[tuple[float, float]] = field(default_factory=list)
    since: float | None = None

    def end(self, when: float) -> None:
        """Close the open one, if there is one."""
        if self.since is not None:
            self.closed.append((self.since, when))
            self.since = None

    def until(self, when: float) -> float:
        """Return the seconds of them all before `when`."""
        spans = self.closed if self.since is None else [*self.closed, (self.since, when)]
        return sum(max(0.0, min(end, when) - start) for start, end in spans)


@dataclass(eq=False)
class Node:
    """Where workers are, as long as it is there."""

    number: int
    chance: Random
    there: Spans = field(default_factory=Spans)
    slots: list[WorkerSlot] = field(default_factory=list)
    joined: int = 0

    @property
    def up(self) -> bool:
        """Whether it is there now."""
        return self.there.since is not None

    @property
    def name(self) -> str:
        """Its id, another one each time that it joins."""
        return f"node {self.number}.{self.joined}"


@dataclass(eq=False)
class WorkerSlot:
    """Where one worker at a time is, and when it had work."""

    number: int
    speed: float
    node: Node
    working: Spans = field(default_factory=Spans)
    actor: Any = None
