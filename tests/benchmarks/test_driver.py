import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.speed import driver
from evomerge.candidate.trial import Entry, GradientJob, Job


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    space = driver.Setting.of("random", 5, tmp_path / "out").space
    recipe = space.candidate(space.middle("task_arithmetic"))
    return [Job(Entry(f"trial {n}", recipe, n), "search", {}) for n in range(3)]


def test_simulated_workers_are_busy_until_their_answer_is_taken(jobs: list[Job]) -> None:
    pool = driver.SimulatedPool(3, 0.0)
    assert (pool.size, pool.free) == (3, 3)
    pool.submit(jobs[0])
    pool.submit(jobs[1])
    time.sleep(0.001)  # both are done
    assert pool.free == 1
    pool.next()
    assert (pool.free, pool.answered) == (2, 1)


def test_work_that_was_begun_first_ends_first(jobs: list[Job]) -> None:
    pool = driver.SimulatedPool(3, 0.01)
    for job in reversed(jobs):
        pool.submit(job)
    answers = [pool.next() for _ in jobs]
    assert [work for work, _ in answers] == jobs[::-1]
    assert [found for _, found in answers] == [driver.answer(job) for job in jobs[::-1]]


def test_an_answer_takes_its_time(jobs: list[Job]) -> None:
    pool = driver.SimulatedPool(1, 0.05)
    start = time.perf_counter()
    pool.submit(jobs[0])
    with pytest.raises(TimeoutError):
        pool.next(timeout=0)
    assert (pool.free, pool.answered) == (0, 0)  # it is not lost
    assert pool.next(timeout=5)[0] is jobs[0]
    assert time.perf_counter() - start >= 0.05


def test_a_step_is_answered_with_a_gradient_for_each_expert_and_layer(jobs: list[Job]) -> None:
    step = GradientJob(
        "descent 0, step 0", jobs[0].entry.candidate, {"task0": (0, 1)}, {"task0": 1}
    )
    gradients = driver.answer(step)
    assert gradients.cost.items == 2
    assert np.shape(gradients.numbers["weight"]) == (driver.LAYERS, 1, driver.EXPERTS)


@pytest.mark.parametrize("sampler", ["random", "gradient"])
def test_busy_is_a_share_of_the_workers_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    monkeypatch.setattr(driver, "SECONDS", 0.02)
    busy, rate = driver.busy_share(sampler, 2, 6, tmp_path / "out")
    assert 0 < busy <= 1
    assert 0 < rate <= 2 / 0.02


def test_ask_and_tell_is_timed_after_the_given_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "MEASURED", 2)
    assert driver.ask_and_tell("random", 3, tmp_path / "out") > 0
    with driver.Store.open(tmp_path / "out", write=False) as store:
        assert [trial.number for trial in store.trials()] == list(range(5))


def test_growth_is_late_over_early_and_busy_the_median() -> None:
    row = driver.Row("cmaes", 64, (0.95, 0.7, 0.9), 900.0, 4.0, 10.0)
    assert (row.growth, row.busy) == (2.5, 0.9)
