from __future__ import annotations

from collections.abc import Callable

import pytest

from evomerge.candidate.trial import Job
from evomerge.errors import ModelError
from evomerge.workers import Evaluates, SerialPool


def test_it_works_in_this_process_when_asked(
    build: Callable[[], Evaluates], job: Callable[..., Job]
) -> None:
    import os

    pool = SerialPool(build)
    pool.submit(job(1))
    _, outcome = pool.next(timeout=0)
    assert outcome.worker == f"pid/{os.getpid()}"


def test_an_interrupted_job_can_be_taken_again(
    build: Callable[[], Evaluates], job: Callable[..., Job]
) -> None:
    class Interrupted:
        left = 1

        def evaluate(self, job: Job) -> object:
            if Interrupted.left:
                Interrupted.left -= 1
                raise KeyboardInterrupt
            return build().evaluate(job)

    pool = SerialPool(Interrupted)  # type: ignore[arg-type]
    pool.submit(job(5))
    with pytest.raises(KeyboardInterrupt):
        pool.next()
    back, outcome = pool.next()
    assert (back, outcome.failure) == (job(5), None)


def test_a_worker_that_cannot_start_says_why() -> None:
    def build() -> Evaluates:
        raise ModelError("no such folder", file="/models/none")

    with pytest.raises(ModelError, match="/models/none: no such folder"):
        SerialPool(build)
