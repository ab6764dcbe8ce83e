"""What a campaign tells while it runs: one interface, and small frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from evomerge.result import Result


@dataclass(frozen=True)
class TrialEnded:
    """A trial whose result is in the results folder.

    Attributes:
        number: From 0.
        state: `complete`, `pruned` (given up before its last item) or `failed`.
        method: What was tried, such as `ties`.
        params: Searched number → value.
        values: Objective → value, estimates where it was pruned; empty after a failure.
        scores: `TASK/METRIC` → value on the search items; empty unless complete.
        seconds: Merging and scoring.
        best: The best value so far, this trial included; None where there is none, or no one value.
        failure: Why it failed; None: it did not.
    """

    number: int
    state: Literal["complete", "pruned", "failed"]
    method: str
    params: Mapping[str, float]
    values: Mapping[str, float]
    scores: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    best: float | None = None
    failure: str | None = None

    @property
    def scalars(self) -> dict[str, float]:
        """Name → number, as charts show them."""
        found = {f"objective/{name}": value for name, value in self.values.items()}
        found |= {f"trial/{name}": value for name, value in self.scores.items()}
        found |= {f"parameter/{name}": value for name, value in self.params.items()}
        if self.best is not None:
            found["best"] = self.best
        states = {"failed": self.state == "failed", "pruned": self.state == "pruned"}
        return (
            found | {"seconds": self.seconds} | {name: float(is_) for name, is_ in states.items()}
        )


@dataclass(frozen=True)
class RowScored:
    """A parent, a baseline or a finalist on one split.

    Attributes:
        name: What reports call it.
        role: `base`, `expert`, `baseline`, `trial` or `finalist`.
        scores: `TASK/METRIC` → value; empty after a failure.
        seconds: Merging and scoring.
        failure: Why it has no scores.
    """

    name: str
    role: str
    scores: Mapping[str, float]
    seconds: float = 0.0
    failure: str | None = None


@dataclass(frozen=True)
class StageEnded:
    """A stage in which models other than trials were scored.

    Attributes:
        stage: `parents and baselines`, `select` or `holdout`.
        split: Of the items: `search`, `select` or `holdout`.
        rows: What was scored in it; rows that an earlier run had scored are not among them.
    """

    stage: str
    split: str
    rows: tuple[RowScored, ...]

    @property
    def scalars(self) -> dict[str, float]:
        """Name → number, as charts show them."""
        return {
            f"{self.split}/{row.name}/{name}": value
            for row in self.rows
            for name, value in row.scores.items()
        }


class Callback:
    """What is told of a campaign while it runs; override what you need.

    Each callback runs in a thread of its own, its calls one after the other, so that the search never waits
    for it. One that raises is left out from then on, and the display says so, once.
    """

    def on_trial(self, trial: TrialEnded) -> None:
        """Take a trial that ended."""

    def on_stage(self, stage: StageEnded) -> None:
        """Take the scores of parents and baselines, finalists, or the winner."""

    def on_end(self, result: Result) -> None:
        """Take the result, once the winner is saved; not called where the campaign stops before."""

    def close(self) -> None:
        """Let go of what is open; the last call, also where the campaign stops or a call before failed."""


@dataclass(frozen=True)
class LoggedRun:
    """What a logger is opened for.

    Attributes:
        name: Of the campaign.
        id: Of the results folder: the same when the campaign is resumed, another when it is replaced.
        results: The results folder.
        folder: Where the logger may write; it need not exist.
        settings: The campaign's, as JSON values.
    """

    name: str
    id: str
    results: Path
    folder: Path
    settings: Mapping[str, Any]


class Logger(Callback):
    """A callback that a campaign file names; its options are its keyword arguments, checked by their types.

    Attributes:
        package: What it needs to be installed; empty: nothing.
        install: What `pip install` takes for that.
        own_place: The environment variable that says where its library writes, if `folder` cannot.
    """

    package: ClassVar[str] = ""
    install: ClassVar[str] = ""
    own_place: ClassVar[str] = ""

    def __init__(self, run: LoggedRun) -> None:
        self.run = run

    @staticmethod
    def of_winner(result: Result) -> dict[str, float]:
        """Return `winner/SPLIT/TASK/METRIC` → value of a campaign's winner."""
        return {
            f"winner/{split}/{task}/{metric}": value.value
            for row in result.leaderboard.winners
            for split, scores in row.splits.items()
            for task, metrics in scores.tasks.items()
            for metric, value in metrics.items()
        }


def flat(settings: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Return settings as texts by dotted name, for loggers that take no others."""
    found: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{before}{key}.")
        else:
            found[f"{before}{key}"] = str(value)
    return found
