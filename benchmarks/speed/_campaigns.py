"""`evomerge search` as a user runs it, and what it did when."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.speed._processes import Line, running
from evomerge import yaml_file

ROOT = Path(__file__).parents[2]
DRAWN = {"search": "test", "select": "validation", "holdout": "validation"}
"""So that the search sees all items of the tasks' `test`, as a peer does that takes the first ones."""
QUIET = {"HF_HUB_OFFLINE": "1", "RAY_ADDRESS": None}


@dataclass
class Progressed:
    """When trials were told; seconds since the command's start.

    Attributes:
        ready: When the first model was scored: from here on every worker stands ready.
        searching: When the search itself began, parents and baselines scored.
        told: Seconds, and the processor seconds of driver and workers until then, a trial each.
        finished: When the command ended, the best model saved.
    """

    ready: float = math.inf
    searching: float = math.inf
    told: list[tuple[float, float]] = field(default_factory=list)
    finished: float = 0.0

    def note(self, line: Line, cpu_seconds: Callable[[], float]) -> None:
        """Read one line of `--display json`."""
        if not line.text.startswith("{"):
            return
        progress = json.loads(line.text)
        if progress.get("done"):
            self.ready = min(self.ready, line.seconds)
        if progress.get("stage") != "search":
            return
        self.searching = min(self.searching, line.seconds)
        fresh = progress["done"] - len(self.told)  # several may be told at once
        if fresh > 0:
            self.told += [(line.seconds, cpu_seconds())] * fresh

    @property
    def trials(self) -> int:
        """Trials after the first."""
        return len(self.told) - 1

    @property
    def per_minute(self) -> float:
        """Trials a minute, from the end of the first to the end of the last."""
        return 60 * self.trials / (self.told[-1][0] - self.told[0][0])

    @property
    def cpu_seconds_each(self) -> float:
        """Processor seconds of driver and workers for one trial."""
        return (self.told[-1][1] - self.told[0][1]) / self.trials

    @property
    def start_up(self) -> float:
        """Seconds until the first trial was told: Ray, models, items, parents and baselines."""
        return self.told[0][0]


def campaign(
    base: str | Path,
    experts: Mapping[str, str | Path],
    space: Mapping[str, Any],
    objectives: Sequence[Mapping[str, Any]],
    tasks_path: Path,
    items: Mapping[str, Any],
    search: Mapping[str, Any],
    *,
    workers: int,
    dtype: str = "float32",
) -> dict[str, Any]:
    """Return a campaign as its file states it; `items` come from the tasks' own splits.

    Args:
        base: The base model.
        experts: Name → model.
        space: The campaign's `space`.
        objectives: The campaign's `objectives`.
        tasks_path: Folder of task files.
        items: Counts by split; `from` is set here: search from `test`, the others from `validation`.
        search: The campaign's `search`.
        workers: How many, a core each.
        dtype: Of the models.
    """
    return {
        "name": "benchmark",
        "models": {
            "base": str(base),
            "experts": [{"model": str(model), "name": name} for name, model in experts.items()],
            "dtype": dtype,
        },
        "space": dict(space),
        "objectives": [dict(objective) for objective in objectives],
        "tasks_path": str(tasks_path),
        "items": {"from": DRAWN, **items},
        "search": dict(search),
        "workers": {"count": workers, "cpus": 1},
    }


def search(settings: Mapping[str, Any], folder: Path) -> Progressed:
    """Run `evomerge search`.

    Args:
        settings: The campaign.
        folder: A new folder for the campaign file, the log and (in `results`) the results.

    Raises:
        RuntimeError: It failed.
    """
    folder.mkdir(parents=True)
    file, log = folder / "campaign.yaml", folder / "search.log"
    file.write_text(yaml_file.dump(dict(settings)), encoding="utf-8")
    program: list[str | Path] = [
        sys.executable,
        "-m",
        "evomerge",
        "search",
        file,
        "--out",
        folder / "results",
    ]
    program += ["--display", "json"]
    progressed = Progressed()
    variables = {**QUIET, "HF_DATASETS_CACHE": str(folder / "cache")}
    with running(program, environment=variables, log=log, folder=ROOT) as command:
        for line in command.lines():
            progressed.note(line, command.cpu_seconds)
            progressed.finished = line.seconds
        code = command.process.wait()
    if code:
        raise RuntimeError(f"evomerge ended with status {code}:\n{log.read_text()[-3000:]}")
    return progressed
