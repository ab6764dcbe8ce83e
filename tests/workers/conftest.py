from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from evomerge.candidate import Recipe
from evomerge.candidate.trial import (
    Candidate,
    Cost,
    Estimate,
    Failure,
    FailureKind,
    GradientJob,
    Gradients,
    Job,
    Outcome,
    TaskScores,
    TensorGradients,
)
from evomerge.workers import Pool, RayPool, SerialPool
from evomerge.workers.cluster import Cluster

MakeJob = Callable[..., Job]


@dataclass(frozen=True)
class FakeEvaluator:
    """Does what the recipe's method says, and nothing that takes long."""

    folder: str

    def evaluate(self, job: Job) -> Outcome:
        command, _, argument = job.candidate.recipe.method.partition(":")
        number = float(job.candidate.number or 0)
        if command == "sleep":
            time.sleep(float(argument))
        elif command == "fail":
            return Outcome(failure=Failure(FailureKind.MERGE, "no such merge"))
        elif command == "die":  # as often as `argument` says, over all processes
            deaths = Path(self.folder) / "deaths"
            with deaths.open("a") as file:
                file.write("x")
            if len(deaths.read_text()) <= int(argument):
                os.kill(os.getpid(), 9)
        elif command == "bug":
            raise KeyError("a bug")
        elif command == "node":
            return Outcome(worker=ray_node())
        scores = TaskScores(("a", "b"), {"acc": (0.1 + 0.2, number)}, {"acc": Estimate(number)})
        return Outcome({"task": scores}, None, Cost(items=2), f"pid/{os.getpid()}")

    def gradient(self, job: GradientJob) -> Gradients:
        if job.recipe.method == "die":
            os.kill(os.getpid(), 9)
        tensors = {"w": TensorGradients(0, job.recipe.model_names(), {"weight": (0.0, 0.1 + 0.2)})}
        return Gradients(float(job.count), {"task": 1.0}, tensors, None, Cost(items=job.count))


def ray_node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


@pytest.fixture
def job() -> MakeJob:
    def make(number: int, command: str = "score") -> Job:
        return Job(Candidate(f"trial {number}", Recipe(command), number), "search")

    return make


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


@pytest.fixture(params=["serial", "ray"])
def pool(request: pytest.FixtureRequest, build: Callable[[], FakeEvaluator]) -> Iterator[Pool]:
    """Every kind of pool, over fake evaluators; what is tested with it holds for all."""
    opened: Pool
    if request.param == "serial":
        opened = SerialPool(build)
    else:
        request.getfixturevalue("ray_cluster")
        opened = RayPool(build, count=2)
    yield opened
    opened.close(force=True)


@pytest.fixture
def ray_pool(ray_cluster: Cluster, build: Callable[[], FakeEvaluator]) -> Iterator[RayPool]:
    opened = RayPool(build, count=2)
    yield opened
    opened.close(force=True)
