from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from evomerge.combine.waiting import Batched


def test_what_waits_is_answered_in_one_go() -> None:
    calls: list[list[int]] = []
    go_on = threading.Event()

    def double(values: Sequence[int]) -> list[int]:
        calls.append(list(values))
        go_on.wait(10)
        return [2 * value for value in values]

    async def ask() -> list[list[int]]:
        batched = Batched(double, most=4)
        first = asyncio.create_task(batched([0]))
        await asyncio.sleep(0)
        await asyncio.sleep(0.05)  # it runs
        rest = [asyncio.create_task(batched([n, 10 * n])) for n in (1, 2, 3)]
        await asyncio.sleep(0)
        go_on.set()
        return list(await asyncio.gather(first, *rest))

    assert asyncio.run(ask()) == [[0], [2, 20], [4, 40], [6, 60]]
    assert calls == [[0], [1, 10, 2, 20], [3, 30]]


def test_nobody_gets_anothers_error() -> None:
    def half(values: Sequence[int]) -> list[float]:
        return [1 / value for value in values]

    async def ask() -> list[object]:
        batched = Batched(half)
        asked = (batched([value]) for value in (1, 0, 2))
        return list(await asyncio.gather(*asked, return_exceptions=True))

    first, second, third = asyncio.run(ask())
    assert (first, third) == ([1.0], [0.5])
    assert isinstance(second, ZeroDivisionError)


def test_who_stops_waiting_is_left_out() -> None:
    seen: list[int] = []
    go_on = threading.Event()

    def run(values: Sequence[int]) -> list[int]:
        go_on.wait(10)
        seen.extend(values)
        return list(values)

    async def ask() -> list[int]:
        batched = Batched(run)
        first = asyncio.create_task(batched([1]))
        await asyncio.sleep(0.05)
        second, third = asyncio.create_task(batched([2])), asyncio.create_task(batched([3]))
        await asyncio.sleep(0)
        second.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await second
        return await first + await third

    assert asyncio.run(ask()) == [1, 3]
    assert seen == [1, 3]
