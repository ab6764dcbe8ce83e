"""The driver alone: how busy it keeps 64 workers, and what ask and tell cost late in a campaign.

    python -m benchmarks.speed.driver [--samplers cmaes gradient ...] [--workers 64] [--trials 6000]

Workers are simulated: each answers after 500 ms, without using the processor. The driver is the real one:
sampler, study database, search loop; 40 weights, five tasks of 64 items.

- busy: share of the workers' time in which they have work, over a campaign; the median of some runs, and
  the least and the most: whatever else runs on the machine takes the driver's time.
- ask + tell at trial 100 and at trial 5,000: one trial at a time, both transactions included. The trials
  before were drawn at random and put into the database; only the descents are over by then.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from statistics import median

import numpy as np

from evomerge.candidate.cost import Cost
from evomerge.candidate.trial import Entry, Estimate, GradientJob, Gradients, Outcome, TaskScores
from evomerge.config import Campaign
from evomerge.merge.methods import METHODS
from evomerge.objective import Objectives, References
from evomerge.progress import NoDisplay
from evomerge.search.loop import explore
from evomerge.search.study import Study
from evomerge.space import Family, Space
from evomerge.store import Store
from evomerge.workers import Pool
from evomerge.workers.pool import Answer, Work

SAMPLERS = ("gradient", "cmaes", "random", "qmc", "nsga2", "tpe")
SECONDS = 0.5
EXPERTS, LAYERS = 5, 8
TASKS, ITEMS = 5, 64
EARLY, LATE, MEASURED = 100, 5000, 30
AIM_BUSY, AIM_GROWTH = 0.95, 3.0


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    sampler: str
    workers: int
    runs: tuple[float, ...]
    trials_per_second: float
    milliseconds_early: float
    milliseconds_late: float

    @property
    def busy(self) -> float:
        """Median share of the workers' time in which they have work."""
        return median(self.runs)

    @property
    def growth(self) -> float:
        """Cost late over cost early."""
        return self.milliseconds_late / self.milliseconds_early


class SimulatedPool(Pool):
    """Workers that answer after a while.

    Args:
        size: How many.
        seconds: After how long.
    """

    def __init__(self, size: int, seconds: float) -> None:
        self._size, self._seconds = size, seconds
        self._running: list[tuple[float, int, Work]] = []
        self._numbers = count()
        self.answered = 0

    @property
    def size(self) -> int:
        """How many workers."""
        return self._size

    @property
    def free(self) -> int:
        """How many are idle; one whose work is done is busy until somebody takes it."""
        return self._size - len(self._running)

    def submit(self, work: Work) -> None:
        """Begin work, which ends when its time is over."""
        heapq.heappush(
            self._running, (time.perf_counter() + self._seconds, next(self._numbers), work)
        )

    def next(self, timeout: float | None = None) -> tuple[Work, Answer]:
        """Wait for the work that ends first."""
        left = self._running[0][0] - time.perf_counter()
        if timeout is not None and left > timeout:
            raise TimeoutError
        if left > 0:
            time.sleep(left)
        _, _, work = heapq.heappop(self._running)
        self.answered += 1
        return work, answer(work)

    def close(self, *, force: bool = False) -> None:
        """Nothing is left behind."""


@dataclass(frozen=True)
class Setting:
    """A campaign over a family that does not exist."""

    campaign: Campaign
    space: Space
    aims: Objectives = field(repr=False)

    @classmethod
    def of(cls, sampler: str, trials: int, out: Path) -> Setting:
        """Return the campaign of a sampler."""
        experts = {f"e{n}": f"/m/e{n}" for n in range(EXPERTS)}
        campaign = Campaign.model_validate(
            {
                "name": out.name,
                "models": {"base": "/m/base", "experts": list(experts.values())},
                "space": {
                    "method": "task_arithmetic",
                    "layers": LAYERS,
                    "parameters": {"weight": {"low": 0.0, "high": 1.2}},
                },
                "objectives": [{"task": task, "metric": "acc"} for task in _TASKS],
                "items": {"search": ITEMS, "select": 4, "holdout": 4},
                "search": {"trials": trials, "seed": 7, "sampler": sampler, "pruner": "none"},
                "out": str(out),
            }
        )
        family = Family("/m/base", experts, LAYERS, "float32")
        references = References(_OUTCOMES[0], dict.fromkeys(experts, _OUTCOMES[1]), {})
        return cls(
            campaign,
            Space.build(campaign.space, family, METHODS),
            Objectives(campaign, references),
        )

    def study(self, store: Store) -> Study:
        """Open the study of a store."""
        return Study(self.space, self.aims, store, counts=dict.fromkeys(_TASKS, ITEMS))

    def create(self) -> Store:
        """Create the results folder."""
        chosen = self.aims.directions
        facts = {"items": {task: {"search": ids} for task, ids in _IDS.items()}}
        return Store.create(Path(self.campaign.out), self.campaign, facts, directions=chosen)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table and write it as JSON."""
    options = _options(arguments)
    rows = []
    print("sampler  busy               trials/s  ask+tell at 100  at 5,000  growth", flush=True)
    for sampler in options.samplers:
        with tempfile.TemporaryDirectory(prefix="driver-", dir=options.folder) as folder:
            shares, rates = zip(
                *(
                    busy_share(sampler, options.workers, options.trials, Path(folder) / f"{run}")
                    for run in range(options.runs)
                ),
                strict=True,
            )
            early = ask_and_tell(sampler, EARLY, Path(folder) / "early")
            late = ask_and_tell(sampler, LATE, Path(folder) / "late")
        row = Row(sampler, options.workers, shares, median(rates), early, late)
        print(
            f"{sampler:7}  {row.busy:4.0%} ({min(shares):.0%} to {max(shares):.0%})  "
            f"{row.trials_per_second:8.0f}  {early:12.2f} ms  {late:6.2f} ms  {row.growth:5.2f}",
            flush=True,
        )
        rows.append(asdict(row) | {"busy": row.busy, "growth": row.growth})
    report = {
        "aims": {"busy": AIM_BUSY, "growth": AIM_GROWTH},
        "load": os.getloadavg(),
        "rows": rows,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def busy_share(sampler: str, workers: int, trials: int, out: Path) -> tuple[float, float]:
    """Return the share of the workers' time in which they worked, and trials a second."""
    setting = Setting.of(sampler, trials, out)
    pool = SimulatedPool(workers, SECONDS)
    with setting.create() as store:
        study = setting.study(store)
        start = time.perf_counter()
        explore(setting.campaign, store, study, pool, NoDisplay())
        seconds = time.perf_counter() - start
    return pool.answered * SECONDS / (workers * seconds), pool.answered / seconds


def ask_and_tell(sampler: str, after: int, out: Path) -> float:
    """Return the median milliseconds of one ask and one tell after so many trials."""
    setting = Setting.of(sampler, after + 100 * MEASURED, out)
    with setting.create() as store:
        _fill(store, setting.space, after)
        study = setting.study(store)
        milliseconds = []
        while len(milliseconds) < MEASURED:
            start = time.perf_counter()
            work = study.ask()
            between = time.perf_counter()
            assert work is not None
            found = answer(work)
            again = time.perf_counter()
            study.tell(work, found)
            if not isinstance(work, GradientJob):
                milliseconds.append(1e3 * (time.perf_counter() - again + between - start))
    return median(milliseconds)


def answer(work: Work) -> Answer:
    """Return one of some outcomes made in advance, or gradients."""
    if isinstance(work, GradientJob):
        numbers = {"weight": (((1e-3,) * EXPERTS,),) * LAYERS}
        return Gradients(1.0, {}, numbers, cost=Cost(items=work.count))
    return _OUTCOMES[(work.entry.number or 0) % len(_OUTCOMES)]


def _fill(store: Store, space: Space, trials: int) -> None:
    """Put trials at random points into the database."""
    draws = np.random.default_rng(0).uniform(0.0, 1.2, (trials, len(space.distributions)))
    for start in range(0, trials, 100):
        with store.together():
            for number in range(start, min(start + 100, trials)):
                params = dict(zip(space.distributions, draws[number].tolist(), strict=True))
                candidate = Entry(f"trial {number}", space.candidate(params), number)
                store.asked(candidate, params, space.distributions)
                outcome = _OUTCOMES[number % len(_OUTCOMES)]
                mean = np.mean([one.values["acc"].value for one in outcome.scores.values()])
                store.told(candidate, outcome, [float(mean)])


def _outcome(seed: int) -> Outcome:
    rng = np.random.default_rng(seed)
    scores = {}
    for task in _TASKS:
        values = tuple((rng.random(ITEMS) < rng.random()).astype(float).tolist())
        mean = {"acc": Estimate(float(np.mean(values)), 0.05)}
        scores[task] = TaskScores(tuple(_IDS[task]), {"acc": values}, mean)
    return Outcome(scores, cost=Cost(0.01, 0.04, TASKS * ITEMS), worker="simulated")


_TASKS = tuple(f"task{n}" for n in range(TASKS))
_IDS = {task: [f"{task}-{n:08x}" for n in range(ITEMS)] for task in _TASKS}
_OUTCOMES = tuple(_outcome(seed) for seed in range(97))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--samplers", nargs="+", default=SAMPLERS)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--trials", type=int, default=6000)
    parser.add_argument("--runs", type=int, default=3, help="campaigns of each sampler")
    parser.add_argument(
        "--folder", type=Path, help="where databases are written; default: temporary"
    )
    parser.add_argument("--out", type=Path, default=Path("results/speed/driver.json"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
