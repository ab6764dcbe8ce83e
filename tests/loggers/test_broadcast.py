from __future__ import annotations

import threading
import time

import pytest

from evomerge.loggers import Broadcast, Callback
from evomerge.progress import NoDisplay
from evomerge.testing.loggers import LATER, STAGE, TRIALS


class Said(NoDisplay):
    def __init__(self):
        self.messages = []

    def say(self, message):
        assert threading.current_thread() is threading.main_thread()
        self.messages.append(message)


class Recorder(Callback):
    def __init__(self, fails=()):
        self.calls, self.fails = [], fails

    def _take(self, name, value=None):
        self.calls.append((name, value))
        if name in self.fails:
            raise self.fails[name]

    def on_trial(self, trial):
        self._take("trial", trial)

    def on_stage(self, stage):
        self._take("stage", stage)

    def on_end(self, result):
        self._take("end", result)

    def close(self):
        self._take("close")


def test_all_is_passed_on_in_its_order():
    one, other, said = Recorder(), Recorder(), Said()
    broadcast = Broadcast({"one": lambda: one, "other": lambda: other}, said)
    for trial in TRIALS:
        broadcast.on_trial(trial)
    broadcast.on_stage(STAGE)
    broadcast.on_end("result")
    broadcast.close()
    expected = [*(("trial", trial) for trial in TRIALS), ("stage", STAGE), ("end", "result")]
    assert one.calls == other.calls == [*expected, ("close", None)]
    assert said.messages == []


@pytest.mark.parametrize(
    ("fault", "shown"),
    [
        (ValueError("two\nlines"), "ValueError: two lines"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
@pytest.mark.parametrize("call", ["trial", "end", "close"])
def test_one_that_fails_is_told_once_and_left_out(fault, shown, call):
    bad, good, said = Recorder({call: fault}), Recorder(), Said()
    broadcast = Broadcast({"bad": lambda: bad, "good": lambda: good}, said)
    for trial in TRIALS:
        broadcast.on_trial(trial)
    broadcast.on_end(None)
    broadcast.close()
    assert said.messages == [f"bad failed and is left out from now on: {shown}"]
    assert len(good.calls) == len(TRIALS) + 2
    assert [name for name, _ in bad.calls if name in (call, "close")] == list(
        dict.fromkeys((call, "close"))
    )


def test_one_that_cannot_be_opened_is_told_once():
    said = Said()

    def opener():
        raise RuntimeError("no key")

    broadcast = Broadcast({"bad": opener}, said)
    broadcast.on_trial(TRIALS[0])
    broadcast.close()
    broadcast.close()
    assert said.messages == ["bad failed and is left out from now on: RuntimeError: no key"]


def test_one_that_is_slow_does_not_slow_the_search_and_is_waited_for():
    slow, said = Recorder(), Said()
    going = threading.Event()
    slow.on_trial = lambda trial: (going.wait(10), slow.calls.append(trial))
    broadcast = Broadcast({"slow": lambda: slow}, said)
    began = time.monotonic()
    for _ in range(1000):
        broadcast.on_trial(LATER)
    assert time.monotonic() - began < 5
    assert slow.calls == []
    going.set()
    broadcast.close()
    assert slow.calls == [*[LATER] * 1000, ("close", None)]
    assert said.messages == []


def test_one_that_hangs_is_left_behind_after_the_limit():
    said, forever = Said(), threading.Event()
    hanging, good = Recorder(), Recorder()
    hanging.on_end = lambda result: forever.wait(60)
    broadcast = Broadcast({"bad": lambda: hanging, "good": lambda: good}, said, seconds=0.2)
    broadcast.on_end(None)
    began = time.monotonic()
    broadcast.close()
    forever.set()
    assert time.monotonic() - began < 10
    assert said.messages == [
        "bad failed and is left out from now on: it has not ended within 0.2 s"
    ]
    assert good.calls == [("end", None), ("close", None)]
