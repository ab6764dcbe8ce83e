from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from evomerge.candidate import Merge
from evomerge.candidate.trial import FailureKind, GradientJob, Gradients, Job
from evomerge.errors import EvomergeError, ModelError
from evomerge.workers import Evaluates, RayPool
from evomerge.workers.cluster import Cluster
from evomerge.workers.pool import Build
from tests.workers.conftest import FakeEvaluator

MakeJob = Callable[..., Job]


def no_model() -> Evaluates:
    raise ModelError("no such folder", file="/models/none", field="models.base")


def no_disk() -> Evaluates:
    raise OSError("the disk is gone")


@pytest.fixture(autouse=True)
def _by_value(ray_cluster: Cluster) -> None:
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])


def test_the_first_to_finish_comes_first(ray_pool: RayPool, job: MakeJob) -> None:
    ray_pool.submit(job(0, "sleep:3"))
    ray_pool.submit(job(1))
    back, _ = ray_pool.next()
    assert back.entry.number == 1
    assert ray_pool.free == 1


def test_a_time_out_leaves_the_job_in_flight(ray_pool: RayPool, job: MakeJob) -> None:
    ray_pool.submit(job(0))
    ray_pool.next()
    ray_pool.submit(job(1, "sleep:2"))
    with pytest.raises(TimeoutError, match=r"no job finished within 0\.2 s"):
        ray_pool.next(timeout=0.2)
    back, outcome = ray_pool.next(timeout=60)
    assert (back.entry.number, outcome.failure) == (1, None)


def test_what_is_finished_can_be_taken_without_waiting(ray_pool: RayPool, job: MakeJob) -> None:
    for _ in range(2):  # both workers have started
        for number in range(2):
            ray_pool.submit(job(number, "sleep:0.2"))
        ray_pool.next(timeout=60)
        ray_pool.next(timeout=60)
    for number in range(2):
        ray_pool.submit(job(number))
    ray_pool._ray.wait(list(ray_pool._running), num_returns=2, timeout=60)
    assert {ray_pool.next(timeout=0)[0].entry.number for _ in range(2)} == {0, 1}


def test_workers_that_begin_again_build_another_evaluator(
    ray_pool: RayPool, job: MakeJob, tmp_path: Path
) -> None:
    def processes() -> set[str]:
        for number in range(2):
            ray_pool.submit(job(number, "process"))
        return {ray_pool.next(timeout=60)[1].worker for _ in range(2)}

    before = processes()  # one of the workers may still be starting
    ray_pool.begin(partial(FakeEvaluator, str(tmp_path / "other")))
    after = processes() | processes()
    assert {one.split()[0] for one in before} == {str(tmp_path)}
    assert {one.split()[0] for one in after} == {str(tmp_path / "other")}
    assert {one.split()[1] for one in before} <= {one.split()[1] for one in after}
    assert ray_pool.size == 2


@pytest.mark.parametrize("deaths", [1, 2])
def test_the_job_of_a_dead_worker_is_done_by_another(
    ray_pool: RayPool, job: MakeJob, deaths: int, capfd: pytest.CaptureFixture[str]
) -> None:
    ray_pool.submit(job(4, f"die:{deaths}"))
    back, outcome = ray_pool.next(timeout=60)
    assert outcome.failure is None
    assert outcome.scores["task"].values["acc"].value == 4.0
    assert back.entry.number == 4
    assert ray_pool.free == ray_pool.size == 2  # one of them is still starting
    assert capfd.readouterr() == ("", "")  # Ray says nothing of it to the user


def test_a_job_that_kills_every_worker_fails_and_the_pool_lives(
    ray_pool: RayPool, job: MakeJob, tmp_path: Path
) -> None:
    ray_pool.submit(job(0, "die:99"))
    ray_pool.submit(job(1))
    found = [ray_pool.next(timeout=60) for _ in range(2)]
    outcomes = {back.entry.number: outcome for back, outcome in found}
    assert outcomes[1].failure is None
    assert outcomes[0].failure is not None
    assert outcomes[0].failure.kind is FailureKind.WORKER
    assert "3 workers died of it" in outcomes[0].failure.reason
    assert (tmp_path / "deaths").read_text() == "xxx"
    for number in (2, 3):
        ray_pool.submit(job(number))
    assert all(ray_pool.next(timeout=60)[1].failure is None for _ in range(2))


def test_the_number_of_retries_is_set(
    ray_cluster: Cluster, build: Build, job: MakeJob, tmp_path: Path
) -> None:
    pool = RayPool(build, count=1, retries=0)
    pool.submit(job(0, "die:99"))
    _, outcome = pool.next(timeout=60)
    pool.close(force=True)
    assert outcome.failure is not None
    assert "1 workers died of it" in outcome.failure.reason
    assert (tmp_path / "deaths").read_text() == "x"


def test_a_gradient_whose_workers_die_is_a_failed_gradient(ray_pool: RayPool) -> None:
    ray_pool.submit(GradientJob("step", Merge("die", ()), {}, {}))
    _, gradients = ray_pool.next(timeout=60)
    assert isinstance(gradients, Gradients)
    assert gradients.failure is not None
    assert gradients.failure.kind is FailureKind.WORKER


def test_an_ordered_pool_gives_back_in_the_order_of_submission(
    ray_cluster: Cluster, build: Build, job: MakeJob
) -> None:
    pool = RayPool(build, count=2, ordered=True)
    pool.submit(job(0, "sleep:2"))
    pool.submit(job(1))
    with pytest.raises(TimeoutError):
        pool.next(timeout=1)
    assert pool.free == 0  # what waits for its turn is in flight
    assert [pool.next(timeout=60)[0].entry.number for _ in range(2)] == [0, 1]
    assert pool.free == 2
    pool.close()


def test_idle_workers_that_died_cost_no_work_its_retries(
    ray_cluster: Cluster, build: Build, job: MakeJob
) -> None:
    pool = RayPool(build, count=2, retries=1)
    for _ in range(2):
        for number in range(2):
            pool.submit(job(number, "sleep:0.5"))
        pids = {int(pool.next(timeout=60)[1].worker.split("/")[1]) for _ in range(2)}
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        time.sleep(1)
    pool.submit(job(7))
    assert pool.next(timeout=60)[1].failure is None
    pool.close()


def test_a_bug_is_a_failure_of_the_job_only(ray_pool: RayPool, job: MakeJob) -> None:
    ray_pool.submit(job(0, "bug"))
    _, outcome = ray_pool.next(timeout=60)
    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.WORKER
    assert outcome.failure.reason == "KeyError: 'a bug'"
    assert ray_pool.free == 2


def test_a_worker_that_cannot_start_says_why_in_its_own_words(job: MakeJob) -> None:
    pool = RayPool(no_model, count=1)
    pool.submit(job(0))
    with pytest.raises(ModelError) as refused:
        pool.next(timeout=60)
    assert str(refused.value) == "/models/none: models.base: no such folder"
    assert refused.value.field == "models.base"
    pool.close(force=True)


def test_a_worker_that_cannot_start_for_an_unforeseen_reason(job: MakeJob) -> None:
    pool = RayPool(no_disk, count=1)
    pool.submit(job(0))
    with pytest.raises(EvomergeError, match=r"^a worker cannot start: OSError: the disk is gone$"):
        pool.next(timeout=60)
    pool.close(force=True)


def test_closing_by_force_does_not_wait(ray_pool: RayPool, job: MakeJob) -> None:
    ray_pool.submit(job(0, "sleep:600"))
    start = time.monotonic()
    ray_pool.close(force=True)
    assert time.monotonic() - start < 10


DRIVER = """
import sys, time
from evomerge.candidate import Merge
from evomerge.candidate.trial import Entry, Job, Outcome
from evomerge.workers import RayPool

class Busy:
    def evaluate(self, job):
        import os
        with open(FILE, "a") as file:
            print("pid", os.getpid(), file=file)
        while True:
            pass

pool = RayPool(Busy, count=2)
for number in range(2):
    pool.submit(Job(Entry("busy", Merge("busy", ()), number), "search"))
try:
    pool.next()
except KeyboardInterrupt:
    start = time.monotonic()
    pool.close(force=True)
    print("closed", time.monotonic() - start < 45, flush=True)
    sys.exit(130)
"""


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_driver(tmp_path: Path, ending: signal.Signals) -> None:
    """A driver with two busy workers is interrupted, or killed: the workers end within seconds."""
    pids, script = tmp_path / "pids", tmp_path / "driver.py"
    script.write_text(DRIVER.replace("FILE", repr(str(pids))))
    driver = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=heed_ctrl_c,
    )
    wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 4, 120)
    workers = [int(word) for word in pids.read_text().split() if word != "pid"]
    if ending is signal.SIGINT:
        os.killpg(driver.pid, signal.SIGINT)  # as a terminal does on Ctrl-C
    else:
        driver.kill()
    output, _ = driver.communicate(timeout=120)
    assert driver.returncode == (130 if ending is signal.SIGINT else -signal.SIGKILL)
    assert output.strip() == ("closed True" if ending is signal.SIGINT else "")
    wait_for(lambda: not any(map(alive, workers)), 30)


def heed_ctrl_c() -> None:
    """A test run in the background ignores Ctrl-C, and its children would inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain"
        time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
