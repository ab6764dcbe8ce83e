"""Batches of candidates: what a worker gets, what comes back, and what becomes of a batch that kills it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from evomerge.candidate import Merge
from evomerge.candidate.cost import Cost
from evomerge.candidate.trial import (
    Failure,
    FailureKind,
    GradientJob,
    Job,
    Jobs,
    Outcome,
    Outcomes,
    Race,
)
from evomerge.testing.pools import EchoEvaluator, OpenPool, PoolSuite, echo_job
from evomerge.testing.simulated_nodes import SimulatedWorkers, VirtualClock
from evomerge.testing.simulated_ray import SimulatedRay, simulated_pool
from evomerge.workers import Evaluates, Pool, RayPool, SerialPool
from evomerge.workers.cluster import Cluster
from evomerge.workers.together import Together, end_to_end, goes_together

STEP = GradientJob("step", Merge("linear", (), "base"), {"task": (0, 3)}, {"task": 1.0})


class TestOfOneWorker(PoolSuite):
    @pytest.fixture
    def open_pool(self) -> OpenPool:
        return lambda build: Together(SerialPool(build), 3)


class TestOfSeveralInOrder(PoolSuite):
    @pytest.fixture
    def open_pool(self) -> OpenPool:
        return lambda build: Together(several(build, 2), 3, ordered=True)


class Noting(EchoEvaluator):
    """Notes the numbers of the candidates that it is given at once; `whole` only alone."""

    def __init__(self) -> None:
        self.given: list[tuple[int | None, ...]] = []

    def evaluate(self, job: Job) -> Outcome:
        self.given.append((job.entry.number,))
        return replace(super().evaluate(job), cost=Cost(score_seconds=job.entry.number or 0))

    def together(self, jobs: Jobs) -> Outcomes:
        numbers = tuple(job.entry.number for job in jobs.each)
        if any(job.entry.candidate.label() == "whole" for job in jobs.each):
            self.given.append(numbers)
            return Outcomes(failure=Failure(FailureKind.WORKER, "gone"))
        found = super().together(jobs)
        self.given[-len(numbers) :] = [numbers]
        return found


@pytest.fixture
def noting() -> Noting:
    return Noting()


def several(build: Callable[[], Evaluates], count: int, *, ordered: bool = False) -> RayPool:
    clock = VirtualClock()
    ray = SimulatedRay(SimulatedWorkers(count), clock)
    return simulated_pool(build, ray, clock, ordered=ordered)


def taken(pool: Pool, count: int) -> Iterator[int | None]:
    for _ in range(count):
        work, outcome = pool.next()
        assert isinstance(work, Job)
        assert isinstance(outcome, Outcome)
        assert outcome.failure is None
        assert outcome.scores["task"].values["acc"].value == work.entry.number
        yield work.entry.number


def test_a_worker_gets_as_many_as_it_takes(noting: Noting) -> None:
    pool = Together(SerialPool(lambda: noting), 3)
    waiting, found = list(range(8)), []
    while len(found) < 8:
        while waiting and pool.free:
            pool.submit(echo_job(waiting.pop(0)))
        found += taken(pool, 1)
    assert found == list(range(8))
    assert noting.given == [(0, 1, 2), (3, 4, 5), (6, 7)]


def test_idle_workers_share_what_waits(noting: Noting) -> None:
    pool = Together(several(lambda: noting, 2), 4)
    pool.wait_ready()
    for number in range(1, 6):
        pool.submit(echo_job(number))
    assert pool.free == 8 - 5
    assert sorted(taken(pool, 5)) == [1, 2, 3, 4, 5]
    assert noting.given == [(1, 2, 3), (4, 5)]


def test_without_time_to_wait_only_whole_batches_begin(noting: Noting) -> None:
    pool = Together(SerialPool(lambda: noting), 3)
    pool.submit(echo_job(0))
    with pytest.raises(TimeoutError):
        pool.next(timeout=0)
    assert noting.given == []
    pool.submit(echo_job(1))
    pool.submit(echo_job(2))
    assert pool.next(timeout=0)[0] == echo_job(0)
    assert noting.given == [(0, 1, 2)]


def test_other_work_goes_alone_and_in_its_turn(noting: Noting) -> None:
    pool = Together(SerialPool(lambda: noting), 4)
    asked = [echo_job(0), echo_job(1), STEP, echo_job(2)]
    for work in asked:
        pool.submit(work)
    assert [pool.next()[0] for _ in asked] == asked
    assert noting.given == [(0, 1), (2,)]


@pytest.mark.parametrize("ordered", [False, True])
def test_a_batch_that_fails_as_a_whole_is_tried_one_by_one(noting: Noting, ordered: bool) -> None:
    inner = several(lambda: noting, 2, ordered=ordered)
    pool = Together(inner, 3, ordered=ordered)
    inner.wait_ready()
    for number, method in enumerate(["linear", "whole", "linear", "linear", "linear", "linear"]):
        pool.submit(echo_job(number, method))
    found = list(taken(pool, 6))
    assert found == sorted(found) if ordered else sorted(found) == list(range(6))
    assert sorted(noting.given) == [(0,), (0, 1, 2), (1,), (2,), (3, 4, 5)]
    assert pool.free == pool.size == 6


def test_what_kills_a_worker_does_not_fail_its_neighbours(
    ray_cluster: Cluster, build: Callable[[], Evaluates]
) -> None:
    pool = Together(RayPool(build, count=1, retries=0), 3)
    for number, method in enumerate(["linear", "die:9", "linear"]):
        pool.submit(echo_job(number, method))
    found = [pool.next() for _ in range(3)]
    pool.close(force=True)
    failures = {work.entry.number: out.failure for work, out in found if isinstance(work, Job)}
    assert failures[0] is None
    assert failures[2] is None
    assert "1 workers died of it" in str(failures[1])


def test_only_merges_on_search_items_go_together() -> None:
    race = Race({}, {}, {}, {}, {}, {})
    job = echo_job(0)
    assert goes_together(job)
    assert not goes_together(STEP)
    assert not goes_together(replace(job, split="select"))
    assert not goes_together(replace(job, race=race))
    assert not goes_together(replace(job, noise=3))


def test_what_a_batch_took_is_shared_out_by_what_was_written() -> None:
    outcomes = [Outcome(cost=Cost(1.0, 2.0, 4, tokens)) for tokens in (10, 20, 30)]
    first, alone, second = (one.cost for one in end_to_end(outcomes, 100.0, 8.0, {0: 10, 2: 30}))
    assert (first.score_seconds, first.began) == (4.0, 100.0)
    assert (alone.score_seconds, alone.began) == (2.0, 105.0)
    assert (second.score_seconds, second.began) == (8.0, 108.0)
    assert first + alone + second == Cost(3.0, 14.0, 12, 60)
    nothing = end_to_end([Outcome(), Outcome()], 0.0, 3.0, {1: 0})
    assert [one.cost.score_seconds for one in nothing] == [0.0, 3.0]
