from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from evomerge.candidate.trial import GradientJob, Gradients, Job, Outcome
from evomerge.testing.pools import EchoEvaluator, echo_job
from evomerge.workers import RayPool
from evomerge.workers.cluster import Cluster
from tests.workers.letters import evaluator, setup

__all__ = ["evaluator", "setup"]

MakeJob = Callable[..., Job]


@dataclass(frozen=True)
class FakeEvaluator(EchoEvaluator):
    """Does what the recipe's method says, and nothing that takes long."""

    folder: str

    def evaluate(self, job: Job) -> Outcome:
        command, _, argument = job.entry.candidate.method.partition(":")
        if command == "sleep":
            time.sleep(float(argument))
        elif command == "die":  # as often as `argument` says, over all processes
            deaths = Path(self.folder) / "deaths"
            with deaths.open("a") as file:
                file.write("x")
            if len(deaths.read_text()) <= int(argument):
                os.kill(os.getpid(), 9)
        elif command == "bug":
            raise KeyError("a bug")
        elif command == "process":
            time.sleep(0.2)  # so that the other one is asked, too
            return Outcome(worker=f"{self.folder} {os.getpid()}")
        elif command == "node":
            return Outcome(worker=ray_node())
        return super().evaluate(job)

    def gradient(self, job: GradientJob) -> Gradients:
        if job.candidate.method == "die":
            os.kill(os.getpid(), 9)
        return super().gradient(job)


def ray_node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


@pytest.fixture
def job() -> MakeJob:
    return echo_job


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Cluster]:
    """One Ray for all tests; pools that find it running use it and leave it running."""
    cluster = Cluster(count=2, cpus=1, gpus=0, address=None)
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield cluster
    cluster.close()


@pytest.fixture
def build(tmp_path: Path) -> Callable[[], FakeEvaluator]:
    return partial(FakeEvaluator, str(tmp_path))


@pytest.fixture
def ray_pool(ray_cluster: Cluster, build: Callable[[], FakeEvaluator]) -> Iterator[RayPool]:
    opened = RayPool(build, count=2)
    yield opened
    opened.close(force=True)
