"""A pool that starts in a thread of its own."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from evomerge.errors import CampaignError
from evomerge.workers.early import EarlyPool


class FakePool:
    def __init__(self) -> None:
        self.thread = threading.current_thread()
        self.closed = False

    def close(self, *, force: bool = False) -> None:
        self.closed = force


def start_fake(pools: list[Any]) -> FakePool:
    pools.append(FakePool())
    return pools[-1]


def test_what_is_taken_is_the_takers_and_its_thread_lives_until_the_end() -> None:
    pools: list[Any] = []
    with EarlyPool(lambda: start_fake(pools)) as early:  # type: ignore[arg-type,return-value]
        early.check()
        assert early.take() is pools[0]
        assert pools[0].thread is not threading.current_thread()
        assert pools[0].thread.is_alive()  # Ray's processes die with the thread that started them
    assert not pools[0].closed
    pools[0].thread.join(timeout=10)
    assert not pools[0].thread.is_alive()


def test_what_nobody_takes_is_closed() -> None:
    pools: list[Any] = []
    with EarlyPool(lambda: start_fake(pools)):  # type: ignore[arg-type,return-value]
        pass
    assert pools[0].closed


def test_what_cannot_start_says_so_where_it_is_waited_for() -> None:
    def fail() -> Any:
        raise CampaignError("no GPU")

    early = EarlyPool(fail)
    for wait in (early.check, early.take):
        with pytest.raises(CampaignError, match="no GPU"):
            wait()
    early.close()
