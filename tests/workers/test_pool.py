"""What holds for every pool: one suite, run on each kind."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from evomerge.candidate import Recipe
from evomerge.candidate.trial import Failure, FailureKind, GradientJob, Gradients, Job, Outcome
from evomerge.workers import Pool
from evomerge.workers.pool import failed

MakeJob = Callable[..., Job]


def test_every_job_comes_back_with_its_own_outcome(pool: Pool, job: MakeJob) -> None:
    waiting = [job(number) for number in range(7)]
    sent, found = {}, {}
    while waiting or len(found) < 7:
        while waiting and pool.free:
            new = waiting.pop()
            sent[new.candidate.number] = new
            pool.submit(new)
        back, outcome = pool.next()
        found[back.candidate.number] = outcome
        assert back == sent[back.candidate.number]
    assert {n: o.scores["task"].metrics["acc"] for n, o in found.items()} == {
        n: (0.1 + 0.2, float(n)) for n in range(7)
    }


def test_free_counts_idle_workers(pool: Pool, job: MakeJob) -> None:
    assert pool.free == pool.size
    for number in range(pool.size):
        pool.submit(job(number))
        assert pool.free == pool.size - number - 1
    with pytest.raises(ValueError, match="every worker is busy"):
        pool.submit(job(99))
    for _ in range(pool.size):
        pool.next()
    assert pool.free == pool.size


def test_a_failure_is_an_outcome(pool: Pool, job: MakeJob) -> None:
    pool.submit(job(1, "fail"))
    _, outcome = pool.next()
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.MERGE
    assert outcome.scores == {}


def test_nothing_to_wait_for_is_an_error(pool: Pool) -> None:
    with pytest.raises(ValueError, match="no job is in flight"):
        pool.next()


@pytest.mark.parametrize("force", [True, False])
def test_closing_twice_is_harmless(pool: Pool, job: MakeJob, force: bool) -> None:
    pool.submit(job(1))
    pool.close(force=force)
    pool.close(force=force)


def test_gradients_come_back_beside_outcomes(pool: Pool, job: MakeJob) -> None:
    gradient_job = GradientJob(
        "step", Recipe("linear", base_model="base"), {"task": (0, 3)}, {"task": 1.0}
    )
    pool.submit(gradient_job)
    back, gradients = pool.next()
    assert back == gradient_job
    assert isinstance(gradients, Gradients)
    assert gradients.loss == 2.0
    assert gradients.tensors["w"].own == {"weight": (0.0, 0.1 + 0.2)}
    pool.submit(job(1))
    assert isinstance(pool.next()[1], Outcome)


def test_a_failure_is_of_the_kind_of_its_work(job: MakeJob) -> None:
    failure = Failure(FailureKind.WORKER, "gone")
    assert failed(job(0), failure) == Outcome(failure=failure)
    assert failed(GradientJob("step", Recipe("linear"), {}, {}), failure) == Gradients(
        failure=failure
    )
