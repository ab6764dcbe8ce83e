"""Tells callbacks what happens, each in a thread of its own; none of them can stop or slow a search."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from operator import methodcaller
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

from evomerge.loggers.callback import Callback, StageEnded, TrialEnded
from evomerge.progress import Display

if TYPE_CHECKING:
    from evomerge.result import Result

SECONDS_TO_END = 60.0
"""How long the end of a campaign waits for all callbacks together."""

Open = Callable[[], Callback]
_Call = Callable[[Callback], object]


class Broadcast(Callback):
    """Passes on what it is told.

    Args:
        openers: What messages call a callback → what opens it; called in its thread.
        display: Is told, once, of each that fails.
        seconds: How long `close` waits for all of them together; None: `SECONDS_TO_END`.
    """

    def __init__(
        self, openers: Mapping[str, Open], display: Display, seconds: float | None = None
    ) -> None:
        self._display = display
        self._seconds = SECONDS_TO_END if seconds is None else seconds
        self._receivers = [_Receiver(name, opener) for name, opener in openers.items()]

    def on_trial(self, trial: TrialEnded) -> None:
        """Pass it on."""
        self._send(methodcaller("on_trial", trial))

    def on_stage(self, stage: StageEnded) -> None:
        """Pass it on."""
        self._send(methodcaller("on_stage", stage))

    def on_end(self, result: Result) -> None:
        """Pass it on."""
        self._send(methodcaller("on_end", result))

    def close(self) -> None:
        """Wait until all have ended, for a limited time; those that have not are left behind."""
        for one in self._receivers:
            one.finish()
        deadline = time.monotonic() + self._seconds
        for one in self._receivers:
            one.join(deadline - time.monotonic(), self._seconds)
        self._report()

    def _send(self, call: _Call) -> None:
        self._report()
        for one in self._receivers:
            one.send(call)

    def _report(self) -> None:
        """Tell of failures from the thread that the display belongs to; forget those that failed."""
        for one in self._receivers:
            if one.fault is not None:
                self._display.say(f"{one.name} failed and is left out from now on: {one.fault}")
        self._receivers = [one for one in self._receivers if one.fault is None]


class _Receiver:
    """One callback in a thread of its own; its first fault ends it."""

    def __init__(self, name: str, opener: Open) -> None:
        self.name = name
        self.fault: str | None = None
        self._open = opener
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._thread = Thread(target=self._run, daemon=True, name=f"evomerge {name}")
        self._thread.start()

    def send(self, call: _Call) -> None:
        self._calls.put(call)

    def finish(self) -> None:
        self._calls.put(None)

    def join(self, seconds: float, limit: float) -> None:
        self._thread.join(max(0.0, seconds))
        if self._thread.is_alive() and self.fault is None:
            self.fault = f"it has not ended within {limit:g} s"

    def _run(self) -> None:
        try:
            callback = self._open()
        except BaseException as error:  # noqa: BLE001 - whatever a library raises, the search goes on
            self.fault = _described(error)
            return
        try:
            while (call := self._calls.get()) is not None:
                call(callback)
        except BaseException as error:  # noqa: BLE001
            self.fault = _described(error)
        try:
            callback.close()
        except BaseException as error:  # noqa: BLE001
            self.fault = self.fault or _described(error)


def _described(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
