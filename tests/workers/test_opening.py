from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from evomerge.errors import CampaignError, UserError
from evomerge.tasks import PromptStyle, SplitPlan, TaskRequest
from evomerge.workers import Assignment, opening

ASSIGNMENT = Assignment(
    ("base",), "float32", (TaskRequest("t"),), None, SplitPlan({}), PromptStyle()
)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Which pool was opened, with which assignment and arguments."""
    calls: list[Any] = []
    for name in ("SerialPool", "RayPool"):
        monkeypatch.setattr(
            opening,
            name,
            lambda build, name=name, **rest: calls.append((name, build.args[0], rest)),
        )
    return calls


def test_no_workers_means_this_process(opened: list[Any]) -> None:
    opening.open_pool(ASSIGNMENT, count=0, cpus=4)
    assert opened == [("SerialPool", replace(ASSIGNMENT, threads=4), {})]


@pytest.mark.parametrize(("cpus", "threads"), [(0.5, 1), (1, 1), (3.9, 3)])
def test_a_worker_has_as_many_threads_as_cores(
    opened: list[Any], cpus: float, threads: int
) -> None:
    opening.open_pool(ASSIGNMENT, count="auto", cpus=cpus, gpus=0.5, retries=5, ordered=True)
    ((name, assignment, rest),) = opened
    assert (name, assignment.threads) == ("RayPool", threads)
    assert rest == {
        "count": "auto",
        "cpus": cpus,
        "gpus": 0.5,
        "address": None,
        "retries": 5,
        "ordered": True,
        "transfer": None,
    }


def test_on_a_cluster_models_adapters_and_tasks_are_on_the_transfer(opened: list[Any]) -> None:
    models = ("/m/base", "/m/base+/m/adapter", "org/name")
    assignment = replace(ASSIGNMENT, models=models, tasks_path="/tasks")
    opening.open_pool(assignment, count=2, address="10.0.0.1:6379")
    transfer = opened[0][2]["transfer"]
    assert transfer.folders == ("/m/base", "/m/adapter", "org/name", "/tasks")
    opening.open_pool(assignment, count=2, address="ray://10.0.0.1:10001")
    assert opened[1][2]["transfer"] is None


def test_a_gpu_that_is_not_there_is_one_line_without_ray_too(
    opened: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        CampaignError, match=r"workers\.gpus: a GPU is asked for, and PyTorch finds"
    ):
        opening.open_pool(ASSIGNMENT, count=0, gpus=1)
    assert opened == []


def test_a_start_beside_the_drivers_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Any] = []

    class FakePool:
        def __init__(self, **settings: Any) -> None:
            self.settings = settings

        def begin(self, build: Any, transfer: Any) -> None:
            begun.append((build.args[0], transfer))

        def close(self, *, force: bool) -> None:
            raise AssertionError("taken")

    monkeypatch.setattr(opening, "RayPool", FakePool)
    assert opening.start_early(count=0) is None
    assert opening.start_early(count=1) is None  # one worker needs no Ray
    early = opening.start_early(count=2, cpus=2)
    assert early is not None
    with early:
        pool: Any = opening.open_pool(ASSIGNMENT, count=2, cpus=2, early=early)
    assert isinstance(pool, FakePool)
    assert (pool.settings["count"], pool.settings["cpus"]) == (2, 2)
    assert begun == [(replace(ASSIGNMENT, threads=2), None)]


@pytest.mark.parametrize("count", [0, 2])
def test_an_address_is_checked_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(opening, "EarlyPool", lambda _start: pytest.fail("started"))
    with pytest.raises(UserError, match="no Ray cluster answers at 127"):
        opening.start_early(count=count, address="127.0.0.1:1")
