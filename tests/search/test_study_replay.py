"""More trials change nothing of a sampler's past: for every sampler that a campaign may name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from evomerge.errors import CampaignError
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


LINEAR = {"method": "linear"}
"""A method whose weights may differ by row."""


@pytest.mark.parametrize("workers", [1, 3])
def test_a_campaign_of_rows_that_is_killed_again_and_again_has_the_same_history(
    driver: ModuleType, tmp_path: Path, workers: int
) -> None:
    found = []
    for name, reopen_at in {"whole": (), "killed": tuple(range(1, 60))}.items():
        campaign = driver.fake_campaign(tmp_path / name, space=LINEAR, sampler="gradient")
        driver.run(campaign, workers=workers, reopen_at=reopen_at)
        found.append(driver.history(tmp_path / name))
    assert found[0] == found[1]
    fine = [row[2].coefficients for row in found[0] if isinstance(row, tuple)]
    assert len({one for one in fine if one is not None}) >= 4, "no path learnt any coefficients"
    tables = fine[-1].tables
    assert tables["a"].shape == (1, 4)
    assert tables["b"].shape == (1, 1)


def test_an_array_is_stored_once_beside_the_state_of_the_path(
    driver: ModuleType, tmp_path: Path
) -> None:
    campaign = driver.fake_campaign(tmp_path / "out", space=LINEAR, sampler="gradient")
    driver.run(campaign)
    with Store.open(tmp_path / "out", write=False) as store:
        kept = set(store.arrays.beginning(""))
        named = {t.candidate.coefficients for t in store.trials()}
        assert {one.digest for one in named if one is not None} | {"descent:0"} == kept


def test_scales_that_no_method_takes_are_refused(driver: ModuleType, tmp_path: Path) -> None:
    plain = driver.fake_campaign(tmp_path / "a", sampler="gradient", scales=["group", "row"])
    with pytest.raises(CampaignError, match=r"search\.scales.*found task_arithmetic"):
        driver.open_study(plain)
