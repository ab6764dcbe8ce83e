"""The shared suite, on each kind of pool."""

from __future__ import annotations

from functools import partial

import pytest

from evomerge.candidate import Merge
from evomerge.candidate.trial import (
    Failure,
    FailureKind,
    GradientJob,
    Gradients,
    Outcome,
    TargetJob,
    TargetsFound,
)
from evomerge.testing.pools import OpenPool, PoolSuite, echo_job
from evomerge.workers import RayPool, SerialPool
from evomerge.workers.cluster import Cluster
from evomerge.workers.pool import failed


class TestSerialPool(PoolSuite):
    @pytest.fixture
    def open_pool(self) -> OpenPool:
        return SerialPool


class TestRayPool(PoolSuite):
    @pytest.fixture
    def open_pool(self, ray_cluster: Cluster) -> OpenPool:
        return partial(RayPool, count=2)


def test_a_failure_is_of_the_kind_of_its_work() -> None:
    failure = Failure(FailureKind.WORKER, "gone")
    assert failed(echo_job(0), failure) == Outcome(failure=failure)
    assert failed(GradientJob("step", Merge("linear", ()), {}, {}), failure) == Gradients(
        failure=failure
    )
    assert failed(TargetJob(Merge("linear", ()), "task"), failure) == TargetsFound((), failure)
