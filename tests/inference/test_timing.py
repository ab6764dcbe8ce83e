"""A model and the base continue the same prompts by turns."""

from __future__ import annotations

from typing import Any

import pytest

from evomerge.inference import timing as timing_module
from evomerge.inference.timing import TURNS, WRITTEN, timing_of


class Clock:
    """Seconds that pass where something is done."""

    def __init__(self) -> None:
        self.now = 0.0
        self.done: list[str] = []

    def perf_counter(self) -> float:
        return self.now


class Fake:
    """An engine that takes so long; under load everything takes longer."""

    def __init__(self, clock: Clock, name: str, seconds: list[float]) -> None:
        self._clock, self._name, self._seconds = clock, name, seconds

    def continue_by(self, prompts: Any, count: int) -> None:
        assert count == WRITTEN
        turn = self._clock.done.count(self._name)
        self._clock.done.append(self._name)
        self._clock.now += self._seconds[turn]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timing_module.time, "perf_counter", clock.perf_counter)
    return clock


LOAD = [9.0, 1.0, 1.0, 4.0, 1.0, 2.0, 1.0, 3.0]
"""By which each turn takes longer, the first one to warm up."""


def test_load_that_both_meet_cancels(clock: Clock) -> None:
    assert len(LOAD) == TURNS + 1
    base: Any = Fake(clock, "base", [0.2 * one for one in LOAD])
    own: Any = Fake(clock, "own", [0.3 * one for one in LOAD])
    found = timing_of(own, base, [[1, 2], [3]])
    assert clock.done == ["base", "own"] * (TURNS + 1)
    assert found.relative == pytest.approx(1.5)
    assert found.spread == pytest.approx(0.0)
    assert found.milliseconds == pytest.approx(150.0)  # of 300 for two prompts, the median turn
    assert found.base_milliseconds == pytest.approx(100.0)
    assert found.tokens_per_second == pytest.approx(2 * WRITTEN / 0.3)


def test_what_comes_before_counts(clock: Clock) -> None:
    base: Any = Fake(clock, "base", [0.2] * 6)

    def route() -> None:
        clock.now += 0.05

    found = timing_of(base, base, [[1]], route, turns=2)
    assert found.relative == pytest.approx(1.25)
    assert len(clock.done) == 2 * 3


def test_the_base_is_as_fast_as_itself(clock: Clock) -> None:
    base: Any = Fake(clock, "base", LOAD)
    found = timing_of(base, base, [[1]])
    assert (found.relative, found.spread) == (1.0, 0.0)
    assert len(clock.done) == TURNS + 1  # once a turn
