"""The real pool on a simulated Ray: the suite of every pool, and what happens to workers and nodes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from evomerge.candidate.cost import Cost
from evomerge.candidate.trial import FailureKind, Job, Outcome
from evomerge.errors import EvomergeError
from evomerge.testing.pools import EchoEvaluator, OpenPool, PoolSuite, echo_job
from evomerge.testing.simulated_nodes import SimulatedWorkers, Spans, VirtualClock
from evomerge.testing.simulated_ray import SimulatedRay, simulated_pool
from evomerge.workers import RayPool

SECONDS = 30.0


class Slow(EchoEvaluator):
    def evaluate(self, job: Job) -> Outcome:
        return replace(super().evaluate(job), cost=Cost(score_seconds=SECONDS, items=2))


def opened(*, seed: int = 0, **workers: Any) -> tuple[RayPool, SimulatedRay, VirtualClock]:
    clock = VirtualClock()
    ray = SimulatedRay(SimulatedWorkers(**workers), clock, seed)
    return simulated_pool(Slow, ray, clock), ray, clock


def served(pool: RayPool, count: int) -> list[tuple[int | None, Outcome]]:
    """Give a pool so many jobs, as many at once as it takes."""
    waiting, found = [echo_job(number) for number in range(count)], []
    while len(found) < count:
        while waiting and pool.free:
            pool.submit(waiting.pop(0))
        job, outcome = pool.next()
        assert isinstance(job, Job)
        assert isinstance(outcome, Outcome)
        found.append((job.entry.number, outcome))
    return found


class TestSimulatedPool(PoolSuite):
    @pytest.fixture
    def open_pool(self) -> OpenPool:
        clock = VirtualClock()
        ray = SimulatedRay(SimulatedWorkers(2), clock)
        return partial(simulated_pool, ray=ray, clock=clock)


def test_time_is_what_the_workers_take() -> None:
    pool, ray, clock = opened(count=4, start=7.0)
    served(pool, 10)
    assert clock.monotonic() == 7.0 + 3 * SECONDS
    assert sorted(slot.working.until(1e9) for slot in ray.slots) == [60.0, 60.0, 90.0, 90.0]


def test_a_fast_worker_does_more() -> None:
    pool, ray, clock = opened(count=2, speeds=(1.0, 3.0))
    found = served(pool, 8)
    assert clock.monotonic() == 2 * SECONDS
    assert [len(slot.working.closed) for slot in ray.slots] == [2, 6]
    assert {outcome.cost.score_seconds for _, outcome in found} == {SECONDS, SECONDS / 3}


def test_a_time_out_is_waited_for_and_no_longer() -> None:
    pool, _, clock = opened(count=1)
    pool.submit(echo_job(3))
    with pytest.raises(TimeoutError):
        pool.next(timeout=0)
    assert clock.monotonic() == 0
    with pytest.raises(TimeoutError):
        pool.next(timeout=10)
    assert clock.monotonic() == 10
    pool.next()
    assert clock.monotonic() == SECONDS


def test_work_of_workers_that_die_comes_back_all_the_same() -> None:
    pool, ray, _ = opened(count=4, deaths=12)
    found = served(pool, 200)
    assert sorted(number or 0 for number, _ in found) == list(range(200))
    assert {outcome.failure for _, outcome in found} == {None}
    assert ray.deaths > 10


def test_work_that_takes_workers_along_is_given_up() -> None:
    pool, ray, _ = opened(count=2, deaths=1e6)
    ((_, outcome),) = served(pool, 1)
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.WORKER
    assert outcome.failure.reason.startswith("3 workers died of it")
    assert ray.deaths == 3


def test_nodes_that_leave_are_not_the_fault_of_the_work() -> None:
    """A node stays two minutes on average, so that much work sees it leave more than twice."""
    pool, ray, clock = opened(count=4, per_node=2, departures=30, absence=60, start=5)
    found = served(pool, 300)
    assert sorted(number or 0 for number, _ in found) == list(range(300))
    assert {outcome.failure for _, outcome in found} == {None}
    assert ray.departures > 20
    worked = sum(slot.working.until(1e9) for slot in ray.slots)
    assert worked > 300 * SECONDS  # some of it twice
    assert all(0 < share < 1 for share in ray.busy(clock.monotonic()))


def test_workers_that_join_get_work() -> None:
    pool, ray, clock = opened(count=4, per_node=1, departures=2, absence=300)
    served(pool, 400)
    for slot in ray.slots:
        last = slot.node.there.closed[-1][1] if slot.node.there.closed else 0.0
        assert any(start > last for start, _ in slot.working.closed) or not slot.node.up
    assert clock.monotonic() > 400 * SECONDS / 4


def test_a_cluster_without_nodes_is_given_up_in_the_pools_own_words() -> None:
    pool, _, clock = opened(count=2, departures=100, absence=1e9)
    with pytest.raises(
        EvomergeError, match="every node left the cluster, and none came within 600"
    ):
        served(pool, 1000)
    assert clock.monotonic() > 600


def test_the_drivers_time_passes_too_where_it_is_charged() -> None:
    spent = iter(range(10**6))
    clock = VirtualClock(lambda: float(next(spent)))
    ray = SimulatedRay(SimulatedWorkers(2), clock)
    served(simulated_pool(Slow, ray, clock), 20)
    assert clock.monotonic() > 20 * SECONDS / 2 + 100
    assert max(ray.busy(clock.monotonic())) < 0.95


def test_spans_are_counted_until_a_moment() -> None:
    spans = Spans([(0.0, 2.0), (5.0, 6.0)], since=10.0)
    assert [spans.until(when) for when in (1, 3, 5.5, 12)] == [1.0, 2.0, 2.5, 5.0]
    spans.end(11.0)
    spans.end(20.0)
    assert spans.until(30) == 4.0


@pytest.mark.parametrize("seed", range(12))
def test_nodes_that_leave_while_workers_start_are_waited_for(seed: int) -> None:
    """A worker needs 40 s to start; its node stays for two minutes in the mean, and is away for one."""
    pool, _, clock = opened(count=1, start=40, per_node=1, departures=30, absence=60, seed=seed)
    pool.wait_ready()
    assert 40 <= clock.monotonic() < 600
    pool.close(force=True)
