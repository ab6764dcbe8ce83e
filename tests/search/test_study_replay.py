"""More trials change nothing of a sampler's past: for every sampler that a campaign may name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from evomerge.search import study
from evomerge.search.samplers import SAMPLERS, Sampler
from evomerge.store import Store

METHODS = {
    "method": ["task_arithmetic", "ties"],
    "parameters": {
        "weight": {"low": 0.0, "high": 1.2},
        "density": {"low": 0.2, "high": 1.0, "per": []},
    },
}
SPACES: dict[str, dict[str, Any]] = {"plain": {}, "methods": METHODS}
SOURCES = ("propose", "next_step")  # what a sampler says; the others are what it is told
HEARD = ("known", "asked", "told", "step_asked", "step_told")
TRIALS = 16

Call = tuple[str, tuple[Any, ...], Any]


class Recorder:
    """Records every call of the samplers that studies open."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[Call] = []
        self._open = study.open_sampler
        self._arguments: tuple[Any, ...] = ()
        monkeypatch.setattr(study, "open_sampler", self._recorded)

    def open_again(self) -> Sampler:
        """Open what the last study opened, unheard."""
        return self._open(*self._arguments)

    def _recorded(self, *arguments: Any) -> Sampler:
        self._arguments = arguments
        found = self._open(*arguments)
        for name in (*SOURCES, *HEARD):
            if hasattr(found, name):
                setattr(found, name, self._watched(name, getattr(found, name)))
        return found

    def _watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any) -> Any:
            answer = call(*arguments)
            self.calls.append((name, arguments, answer))
            return answer

        return watched


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return Recorder(monkeypatch)


def extend(folder: Path, trials: int) -> None:
    with Store.open(folder, write=True) as store:
        store.extend(trials)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_more_trials_leave_a_samplers_history_as_it_was(
    driver: ModuleType, tmp_path: Path, recorder: Recorder, sampler: str, space: str
) -> None:
    folder = tmp_path / "out"
    campaign = driver.fake_campaign(folder, space=SPACES[space], sampler=sampler, trials=TRIALS)
    # Alone, the sampler that follows gradients goes on with another one within the budget.
    driver.run(campaign, workers=1 if sampler == "gradient" else 3)
    before = trials(folder)
    first, recorder.calls = recorder.calls, []
    extend(folder, 1000)  # beyond what decides between a full and a separable covariance
    driver.open_study(campaign)[0].close()
    assert recorder.calls == [call for call in first if call[0] in HEARD]
    again = recorder.open_again()
    for name, arguments, answer in first:
        assert getattr(again, name)(*arguments) == answer
    extend(folder, -1000 + 4)
    driver.run(campaign, workers=2)
    after = trials(folder)
    assert len(after) == TRIALS + 4
    assert after[:TRIALS] == before


def trials(folder: Path) -> list[object]:
    with Store.open(folder, write=False) as store:
        return [(trial.params, trial.values) for trial in store.trials()]
