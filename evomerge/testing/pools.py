"""What holds for every pool of workers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from evomerge.candidate import Merge
from evomerge.candidate.activations import ActivationsFound, ActivationsJob
from evomerge.candidate.cost import Cost
from evomerge.candidate.states import StatesFound, StatesJob
from evomerge.candidate.trial import (
    Entry,
    Estimate,
    Failure,
    FailureKind,
    GradientJob,
    Gradients,
    Job,
    Jobs,
    Outcome,
    Outcomes,
    Target,
    TargetJob,
    TargetsFound,
    TaskScores,
)
from evomerge.candidate.writing import WriteJob, Written
from evomerge.workers.pool import Build, Pool

OpenPool = Callable[[Build], Pool]


class EchoEvaluator:
    """Answers at once with the number of the candidate; a merge of the method `fail` fails."""

    def evaluate(self, job: Job) -> Outcome:
        """Return the candidate's number as its only score."""
        if job.entry.candidate.label() == "fail":
            return Outcome(failure=Failure(FailureKind.MERGE, "no such merge"))
        number = float(job.entry.number or 0)
        scores = TaskScores(("a", "b"), {"acc": (0.1 + 0.2, number)}, {"acc": Estimate(number)})
        return Outcome({"task": scores}, None, Cost(items=2), f"pid/{os.getpid()}")

    def together(self, jobs: Jobs) -> Outcomes:
        """Return what comes of each alone."""
        return Outcomes(tuple(map(self.evaluate, jobs.each)))

    def gradient(self, job: GradientJob) -> Gradients:
        """Return the number of items as the loss, and of each task the first number that its teacher told."""
        numbers = {"weight": (((0.0, 0.1 + 0.2),),)}
        first = {
            task: float(target.logprobs[0, 0])
            for task, targets in job.targets.items()
            for target in targets
            if target is not None
        }
        return Gradients(float(job.count), first, numbers, None, Cost(items=job.count))

    def targets(self, job: TargetJob) -> TargetsFound:
        """Return a target and none; a merge of the method `fail` fails."""
        if job.candidate.label() == "fail":
            return TargetsFound((), Failure(FailureKind.MERGE, "no such merge"))
        target = Target(np.full((2, 3), -0.1, np.float16), np.array([[5, 1, 0]] * 2, np.int32))
        return TargetsFound((target, None), None, Cost(items=2))

    def write(self, job: WriteJob) -> Written:
        """Return the prompts backwards."""
        return Written(tuple(prompt[::-1] for prompt in job.prompts))

    def states(self, job: StatesJob) -> StatesFound:
        """Return the numbers of the models in place of distances."""
        numbers = tuple(map(float, range(len(job.models))))
        return StatesFound(((numbers,),), job.limit)

    def activations(self, job: ActivationsJob) -> ActivationsFound:
        """Return a number a task."""
        return ActivationsFound({task: np.ones((1, 2), np.float32) for task in job.tasks})


def echo_job(number: int, method: str = "linear") -> Job:
    """Return a job for `EchoEvaluator`."""
    return Job(Entry(f"trial {number}", Merge(method, ()), number), "search")


class PoolSuite:
    """Tests of a pool. Override `open_pool`: a function from a builder of evaluators to an open pool."""

    @pytest.fixture
    def open_pool(self) -> OpenPool:
        """Return what opens a pool, such as the pool's class."""
        pytest.fail("override the fixture `open_pool`")

    @pytest.fixture
    def pool(self, open_pool: OpenPool) -> Iterator[Pool]:
        """Open a pool of `EchoEvaluator`s."""
        pool = open_pool(EchoEvaluator)
        yield pool
        pool.close(force=True)

    def test_every_job_comes_back_with_its_own_outcome(self, pool: Pool) -> None:
        waiting = [echo_job(number) for number in range(7)]
        sent: dict[int | None, Job] = {}
        found: dict[int | None, tuple[float, ...]] = {}
        while waiting or len(found) < 7:
            while waiting and pool.free:
                new = waiting.pop()
                sent[new.entry.number] = new
                pool.submit(new)
            back, outcome = pool.next()
            assert isinstance(back, Job)
            assert isinstance(outcome, Outcome)
            assert back == sent[back.entry.number]
            found[back.entry.number] = outcome.scores["task"].metrics["acc"]
        assert found == {number: (0.1 + 0.2, float(number)) for number in range(7)}

    def test_free_counts_idle_workers(self, pool: Pool) -> None:
        pool.wait_ready()
        assert pool.free == pool.size
        for number in range(pool.size):
            pool.submit(echo_job(number))
            assert pool.free == pool.size - number - 1
        with pytest.raises(ValueError, match="every worker is busy"):
            pool.submit(echo_job(99))
        for _ in range(pool.size):
            pool.next()
        assert pool.free == pool.size

    def test_a_failure_is_an_outcome(self, pool: Pool) -> None:
        pool.submit(echo_job(1, "fail"))
        _, outcome = pool.next()
        assert outcome == Outcome(failure=Failure(FailureKind.MERGE, "no such merge"))

    def test_gradients_come_back_beside_outcomes(self, pool: Pool) -> None:
        work = GradientJob("step", Merge("linear", (), "base"), {"task": (0, 3)}, {"task": 1.0})
        pool.submit(work)
        back, gradients = pool.next()
        assert back == work
        assert isinstance(gradients, Gradients)
        assert gradients.loss == 2.0
        assert gradients.numbers == {"weight": (((0.0, 0.1 + 0.2),),)}
        pool.submit(echo_job(1))
        assert isinstance(pool.next()[1], Outcome)

    def test_targets_come_back_and_travel_with_gradients(self, pool: Pool) -> None:
        work = TargetJob(Merge("linear", ()), "task")
        pool.submit(work)
        back, found = pool.next()
        assert back == work
        assert isinstance(found, TargetsFound)
        target, none = found.targets
        assert none is None
        assert target is not None
        assert target.tokens is not None
        assert target.logprobs.tolist() == np.full((2, 3), -0.1, np.float16).tolist()
        assert target.tokens.tolist() == [[5, 1, 0]] * 2
        assert target.tokens.dtype == np.int32
        assert target.rest is None
        step = GradientJob(
            "step", Merge("linear", ()), {"task": (0, 3)}, {}, targets={"task": found.targets}
        )
        pool.submit(step)
        again, gradients = pool.next()
        assert again == step
        assert isinstance(gradients, Gradients)
        assert gradients.losses == {"task": float(target.logprobs[0, 0])}
        pool.submit(TargetJob(Merge("fail", ()), "task"))
        _, failed = pool.next()
        assert failed == TargetsFound((), Failure(FailureKind.MERGE, "no such merge"))

    def test_texts_come_back_as_they_were_written(self, pool: Pool) -> None:
        work = WriteJob("texts", Merge("linear", ()), ("ab", "\n cd"), 4, ("x",))
        pool.submit(work)
        assert pool.next() == (work, Written(("ba", "dc \n")))

    def test_nothing_to_wait_for_is_an_error(self, pool: Pool) -> None:
        with pytest.raises(ValueError, match="no job was submitted"):
            pool.next()

    @pytest.mark.parametrize("force", [True, False])
    def test_closing_twice_is_harmless(self, pool: Pool, force: bool) -> None:
        pool.submit(echo_job(1))
        pool.close(force=force)
        pool.close(force=force)
