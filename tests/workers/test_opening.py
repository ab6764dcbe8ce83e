from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch

from evomerge.config import Workers
from evomerge.errors import CampaignError, UserError
from evomerge.tasks import PromptStyle, SplitPlan, TaskRequest
from evomerge.workers import WorkerSetup, opening

SETUP = WorkerSetup(("base",), "float32", (TaskRequest("t"),), None, SplitPlan({}), PromptStyle())


class FakePool:
    """Takes what it is given."""

    opened: ClassVar[list[FakePool]] = []

    def __init__(self, *build: Any, **settings: Any) -> None:
        self.build = build[0] if build else None
        self.settings = settings
        self.transfer: Any = None
        self.closed = False
        self.thread = threading.current_thread()
        self.opened.append(self)

    def begin(self, build: Any, transfer: Any) -> None:
        self.build, self.transfer = build, transfer

    def close(self, *, force: bool) -> None:
        self.closed = force


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[FakePool]:
    """The pools that were opened."""
    monkeypatch.setattr(FakePool, "opened", [])
    for name in ("SerialPool", "RayPool"):
        monkeypatch.setattr(opening, name, type(name, (FakePool,), {}))
    return FakePool.opened


def test_no_workers_means_this_process(opened: list[Any]) -> None:
    opening.open_pool(SETUP, Workers(count=0, cpus=4))
    (pool,) = opened
    assert type(pool).__name__ == "SerialPool"
    assert pool.build.args == (replace(SETUP, threads=4),)


@pytest.mark.parametrize(("cpus", "threads"), [(0.5, 1), (1, 1), (3.9, 3)])
def test_a_worker_has_as_many_threads_as_cores(
    opened: list[Any], cpus: float, threads: int
) -> None:
    opening.open_pool(SETUP, Workers(cpus=cpus, gpus=0.5, retries=5), ordered=True)
    (pool,) = opened
    assert type(pool).__name__ == "RayPool"
    assert pool.build.args[0].threads == threads
    assert pool.settings.pop("prepare") is not None
    assert pool.settings == {
        "count": "auto",
        "cpus": cpus,
        "gpus": 0.5,
        "address": None,
        "retries": 5,
        "ordered": True,
    }


def test_on_a_cluster_models_adapters_and_tasks_are_on_the_transfer(opened: list[Any]) -> None:
    models = ("/m/base", "/m/base+/m/adapter", "org/name")
    requests = (TaskRequest("t"), TaskRequest("p", answers="/answers"))
    setup = replace(SETUP, models=models, tasks_path="/tasks", requests=requests)
    opening.open_pool(setup, Workers(count=2), address="10.0.0.1:6379")
    folders = ("/m/base", "/m/adapter", "org/name", "/tasks", "/answers")
    assert opened[0].transfer.folders == folders
    opening.open_pool(setup, Workers(count=2), address="ray://10.0.0.1:10001")
    assert opened[1].transfer is None


def test_a_gpu_that_is_not_there_is_one_line_without_ray_too(
    opened: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        CampaignError, match=r"workers\.gpus: a GPU is asked for, and PyTorch finds"
    ):
        opening.open_pool(SETUP, Workers(count=0, gpus=1))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(
        CampaignError, match=r"workers\.gpus: 4 GPUs are asked for, and PyTorch finds 2"
    ):
        opening.open_pool(SETUP, Workers(count=1, gpus=4))
    assert opened == []


@pytest.mark.parametrize("count", [0, 1])
def test_one_worker_needs_no_ray(opened: list[Any], count: int) -> None:
    with opening.started_workers(Workers(count=count)) as started:
        assert started is None
    assert opened == []


def test_workers_start_in_a_thread_that_lives_until_the_end(opened: list[Any]) -> None:
    workers = Workers(count=2, cpus=2)
    with opening.started_workers(workers) as started:
        assert started is not None
        pool: Any = opening.open_pool(SETUP, workers, started=started)
        assert opened == [pool]
        assert pool.build.args == (replace(SETUP, threads=2), None, workers)
        assert pool.thread is not threading.current_thread()
        assert pool.thread.is_alive()  # Ray's processes die with the thread that started them
        assert not pool.closed
    assert pool.closed
    assert not pool.thread.is_alive()


def test_what_cannot_start_says_so_where_it_is_waited_for(
    opened: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: Any) -> Any:
        raise CampaignError("no GPU")

    monkeypatch.setattr(opening, "RayPool", fail)
    workers = Workers(count=2)
    with (
        opening.started_workers(workers) as started,
        pytest.raises(CampaignError, match="no GPU"),
    ):
        opening.open_pool(SETUP, workers, started=started)


@pytest.mark.parametrize("count", [0, 2])
def test_an_address_is_checked_before_anything_starts(opened: list[Any], count: int) -> None:
    with (
        pytest.raises(UserError, match="no Ray cluster answers at 127"),
        opening.started_workers(Workers(count=count), address="127.0.0.1:1"),
    ):
        pass
    assert opened == []
