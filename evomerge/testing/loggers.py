"""What holds for every logger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from evomerge.candidate import Merge
from evomerge.errors import CampaignError
from evomerge.loggers import (
    Broadcast,
    Callback,
    LoggedRun,
    Logger,
    RowScored,
    StageEnded,
    TrialEnded,
    check_logger,
)
from evomerge.progress import NoDisplay
from evomerge.report.evidence import Evidence
from evomerge.report.formats import render
from evomerge.report.leaderboard import Leaderboard
from evomerge.report.rows import Row
from evomerge.report.scores import SplitScores, Value
from evomerge.report.summary import Goal, Summary
from evomerge.result import Result

Read = Callable[[LoggedRun], Mapping[str, Sequence[float]]]
"""What a logger wrote: name → its values, in the order in which they were written."""

SETTINGS: Mapping[str, Any] = {
    "name": "small",
    "search": {"trials": 3, "sampler": "cmaes"},
    "keep": [],
    "out": None,
}
TRIALS = (
    TrialEnded(
        0, "complete", "ties", {"weight/facts": 0.25}, {"mean": 0.5}, {"facts/acc": 0.5}, 1.5, 0.5
    ),
    TrialEnded(1, "pruned", "ties", {"weight/facts": 0.75}, {"mean": 0.375}, {}, 0.5, 0.5),
    TrialEnded(2, "failed", "ties", {"weight/facts": 1.0}, {}, {}, 0.125, 0.5, "NaN in layer 3"),
)
LATER = TrialEnded(
    3, "complete", "ties", {"weight/facts": 0.5}, {"mean": 0.625}, {"facts/acc": 0.625}, 1.25, 0.625
)
STAGE = StageEnded(
    "holdout",
    "holdout",
    (
        RowScored("base", "base", {"facts/acc": 0.3125}, 1.0),
        RowScored("task arithmetic λ=0.4", "baseline", {"facts/exact_match,none": 0.4375}, 1.0),
        RowScored("trial 2", "trial", {}, 0.0, "NaN in layer 3"),
    ),
)


class LoggerSuite:
    """Fixtures to override: `kind` and `read`; `options` where it has some that tests need."""

    @pytest.fixture
    def kind(self) -> type[Logger]:
        """Return the class under test."""
        pytest.fail("override the fixture `kind`")

    @pytest.fixture
    def read(self) -> Read:
        """Return what reads back what the logger wrote, by its library or from its files."""
        pytest.fail("override the fixture `read`")

    @pytest.fixture
    def options(self) -> Mapping[str, Any]:
        """Return its options, as a campaign file gives them."""
        return {}

    @pytest.fixture
    def logged_run(self, tmp_path: Path) -> LoggedRun:
        """Return a campaign whose results folder is empty."""
        results = tmp_path / "results"
        results.mkdir()
        return LoggedRun("small", uuid4().hex, results, tmp_path / "logs", SETTINGS)

    def test_its_options_are_checked(
        self, kind: type[Logger], options: Mapping[str, Any], logged_run: LoggedRun
    ) -> None:
        check_logger("mine", options, {"mine": kind}, "loggers.0")
        with pytest.raises(CampaignError, match='mine has no option "no_such_option"'):
            check_logger("mine", {**options, "no_such_option": 1}, {"mine": kind}, "loggers.0")
        assert not logged_run.folder.exists()

    def test_what_it_was_told_can_be_read(
        self, kind: type[Logger], options: Mapping[str, Any], logged_run: LoggedRun, read: Read
    ) -> None:
        _tell(kind, options, logged_run, TRIALS, ended=True)
        found = read(logged_run)
        for name in {name for trial in TRIALS for name in trial.scalars}:
            told = [trial.scalars[name] for trial in TRIALS if name in trial.scalars]
            assert found[name] == pytest.approx(told), name
        assert found["holdout/base/facts/acc"][-1] == pytest.approx(0.3125)
        assert found["winner/holdout/facts/acc"][-1] == pytest.approx(0.75)
        assert 0.4375 in {value for values in found.values() for value in values}

    def test_a_resumed_campaign_goes_on(
        self, kind: type[Logger], options: Mapping[str, Any], logged_run: LoggedRun, read: Read
    ) -> None:
        _tell(kind, options, logged_run, TRIALS, ended=False)
        _tell(kind, options, logged_run, [LATER], ended=True)
        assert read(logged_run)["objective/mean"] == pytest.approx([0.5, 0.375, 0.625])

    def test_one_that_stops_at_once_leaves_nothing_open(
        self, kind: type[Logger], options: Mapping[str, Any], logged_run: LoggedRun
    ) -> None:
        _tell(kind, options, logged_run, [], ended=False)


class _Said(NoDisplay):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def say(self, message: str) -> None:
        self.messages.append(message)


def _tell(
    kind: type[Logger],
    options: Mapping[str, Any],
    run: LoggedRun,
    trials: Sequence[TrialEnded],
    *,
    ended: bool,
) -> None:
    """Tell a campaign's story as a campaign does, from another thread; nothing may fail."""

    def opened() -> Callback:
        return kind(run, **options)

    said = _Said()
    broadcast = Broadcast({"it": opened}, said)
    for trial in trials:
        broadcast.on_trial(trial)
    if ended:
        broadcast.on_stage(STAGE)
        broadcast.on_end(_result(run.results))
    broadcast.close()
    assert said.messages == []


def _result(folder: Path) -> Result:
    recipe = Merge("ties", ("/one",), "/base", fixed={"weight": 0.5})
    scores = SplitScores(Value(0.75), None, {"facts": {"acc": Value(0.75, 0.5, 1.0, n=4)}})
    row = Row("trial 0", "winner", 0, recipe, {"holdout": scores}, key="trial:0")
    summary = Summary(
        name="small",
        mode="mean",
        base="/base",
        experts={"one": "/one"},
        goals=(Goal("facts", "acc", "acc"),),
        items={"search": 4, "select": 4, "holdout": 4},
        trials=3,
        complete=1,
        failed=1,
        versions={},
        prompts={},
    )
    board = Leaderboard(summary, (row,), Evidence())
    (folder / "leaderboard.md").write_text(render(board, "markdown"), encoding="utf-8")
    return Result(folder, board)
