"""Calls from an event loop that a thread answers, all that wait at once in one go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Batched(Generic[T, R]):
    """A function of many values, called with whatever came in while it ran last.

    Args:
        function: Values → as many results, in their order. It runs in a thread of its own, never
            twice at once. Where it raises for several values, each is tried alone.
        most: Most values of a call.
    """

    def __init__(self, function: Callable[[Sequence[T]], Sequence[R]], most: int = 64) -> None:
        self._function, self._most = function, most
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="evomerge-router")
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, values: Sequence[T]) -> list[R]:
        """Return the function's results. Raises what it raises of one of the values."""
        loop = asyncio.get_running_loop()
        mine = [(value, loop.create_future()) for value in values]
        self._waiting += mine
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run())
        return list(await asyncio.gather(*(found for _, found in mine)))

    async def _run(self) -> None:
        while self._waiting:
            self._waiting = [one for one in self._waiting if not one[1].done()]  # nobody waits for
            taken, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            if not taken:
                return
            for (_, waiting), result in zip(taken, await self._results(taken), strict=True):
                if waiting.done():  # cancelled meanwhile
                    continue
                if isinstance(result, Exception):
                    waiting.set_exception(result)
                else:
                    waiting.set_result(result)

    async def _results(
        self, taken: Sequence[tuple[T, asyncio.Future[R]]]
    ) -> Sequence[R | Exception]:
        loop = asyncio.get_running_loop()
        values = [value for value, _ in taken]

        def answers() -> Sequence[R | Exception]:
            try:
                return self._function(values)
            except Exception as error:  # noqa: BLE001 - raised where it is waited for
                return [error] if len(values) == 1 else [self._alone(value) for value in values]

        return await loop.run_in_executor(self._thread, answers)

    def _alone(self, value: T) -> R | Exception:
        try:
            return self._function([value])[0]
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            return error
