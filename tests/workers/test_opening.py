from __future__ import annotations

from typing import Any

import pytest

from evomerge.score import PromptStyle, SplitPlan, TaskRequest
from evomerge.workers import Assignment, opening

ASSIGNMENT = Assignment(
    ("base",), "float32", (TaskRequest("t"),), None, SplitPlan({}), PromptStyle()
)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Which pool was opened, with which threads and arguments."""
    calls: list[Any] = []
    for name in ("SerialPool", "RayPool"):
        monkeypatch.setattr(
            opening,
            name,
            lambda build, name=name, **rest: calls.append((name, build.args[0].threads, rest)),
        )
    return calls


def test_no_workers_means_this_process(opened: list[Any]) -> None:
    opening.open_pool(ASSIGNMENT, count=0, cpus=4)
    assert opened == [("SerialPool", 4, {})]


@pytest.mark.parametrize(("cpus", "threads"), [(0.5, 1), (1, 1), (3.9, 3)])
def test_a_worker_has_as_many_threads_as_cores(
    opened: list[Any], cpus: float, threads: int
) -> None:
    opening.open_pool(ASSIGNMENT, count="auto", cpus=cpus, gpus=0.5, address="auto")
    rest = {"count": "auto", "cpus": cpus, "gpus": 0.5, "address": "auto"}
    assert opened == [("RayPool", threads, rest)]
