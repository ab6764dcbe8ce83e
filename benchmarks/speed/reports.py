"""Reports of a long study: seconds, and memory at its peak.

    python -m benchmarks.speed.reports [--trials 10000] [--workers 16] [--studies finished ...]
        [--reports page ...] [--folder DIR]

The study is written through the store: 60 weights, five tasks of 64 items, two metrics an item; some trials
are pruned, some fail. It is reported as a finished one, as one that still runs, and as one with a front.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evomerge.candidate import Merge
from evomerge.candidate.cost import Cost
from evomerge.candidate.trial import (
    SPLITS,
    Entry,
    Estimate,
    Failure,
    FailureKind,
    Job,
    Outcome,
    Pruned,
    Split,
    TaskScores,
)
from evomerge.config import Campaign
from evomerge.merge.methods import METHODS
from evomerge.space import Family, Space
from evomerge.store import Store

EXPERTS = ("extraction", "dialogue", "tools", "translation", "facts")
TASKS = tuple(f"zoo_{name}" for name in EXPERTS)
METRICS = ("gold_loglikelihood", "exact_match")
ITEMS: dict[Split, int] = {"search": 64, "select": 64, "holdout": 200}
LAYERS = 4
STUDIES = ("finished", "running", "front")
AIM_SECONDS, AIM_MEGABYTES = 20.0, 500.0
REPORTS = {
    "leaderboard": "import evomerge; evomerge.report(folder).to_json()",
    "figures": (
        "import json; from evomerge.report.figures import FIGURES; "
        "from evomerge.report.material import Material; from evomerge.store import Store; "
        "material = Material.of(Store.open(folder, write=False)); "
        "[json.dumps(one.build(material)) for one in FIGURES.values()]"
    ),
    "page": (
        "from evomerge import cli; page = str(folder / 'report.html'); "
        "assert cli.run_command(['report', str(folder), '--html', page]) == 0"
    ),
    "trials": "import evomerge; evomerge.open(folder).to_pandas()",
}


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    study: str
    report: str
    seconds: float
    processor_seconds: float
    megabytes: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table and write it as JSON."""
    options = _options(arguments)
    rows = []
    print("study     report        seconds  processor s   peak MB", flush=True)
    for study in options.studies:
        with tempfile.TemporaryDirectory(prefix="reports-", dir=options.folder) as folder:
            out = Path(folder) / study
            write_study(out, options.trials, options.workers, kind=study)
            for name in options.reports:
                row = measured(study, name, REPORTS[name], out)
                print(
                    f"{row.study:9} {row.report:11} {row.seconds:9.1f} {row.processor_seconds:12.1f} "
                    f"{row.megabytes:9.0f}",
                    flush=True,
                )
                rows.append(asdict(row))
    report = {
        "aims": {"seconds": AIM_SECONDS, "megabytes": AIM_MEGABYTES},
        "trials": options.trials,
        "load": os.getloadavg(),
        "rows": rows,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def measured(study: str, name: str, code: str, folder: Path) -> Row:
    """Make a report in a process of its own."""
    start = time.perf_counter()
    run = f"from pathlib import Path; folder = Path({str(folder)!r}); {code}"
    child = subprocess.Popen([sys.executable, "-c", run])
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"the report {name} of the study {study} failed")
    seconds = time.perf_counter() - start
    return Row(study, name, seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def write_study(out: Path, trials: int, workers: int = 16, *, kind: str = "finished") -> None:
    """Write a study of so many trials: `finished`, `running`, or with a `front`."""
    campaign = _campaign(out, trials, pareto=kind == "front")
    family = Family("/m/base", {name: f"/m/{name}" for name in EXPERTS}, LAYERS, "float32")
    space = Space.build(campaign.space, family, METHODS)
    draw = _Draw()
    directions = ["maximize"] * (len(TASKS) if kind == "front" else 1)
    with Store.create(out, campaign, _facts(), directions=directions) as store:
        known = [Entry("base", Merge("passthrough", ("/m/base",)), role="base")]
        known += [
            Entry(one, Merge("passthrough", (f"/m/{one}",)), role="expert") for one in EXPERTS
        ]
        known += [
            Entry(f"task arithmetic λ={weight}", draw.merge(space, weight), role="baseline")
            for weight in (0.2, 0.4, 0.6, 0.8)
        ]
        _record(store, known, "search", draw)
        _trials(store, space, trials, workers, draw)
        if kind == "running":
            return
        finalists = [trial.entry for trial in store.trials() if trial.state == "complete"][-8:]
        _record(store, [*known, *finalists], "select", draw)
        _record(store, [*known, finalists[-1]], "holdout", draw)
        store.choose(finalists[-1], "the best of 8 finalists on the select items")
        store.end("trials")
        store.finish()


def _trials(store: Store, space: Space, trials: int, workers: int, draw: _Draw) -> None:
    free = [0.0] * workers
    for start in range(0, trials, 100):
        with store.together():
            for number in range(start, min(start + 100, trials)):
                params = draw.point(space)
                entry = Entry(f"trial {number}", space.candidate(params), number)
                store.asked(entry, params, space.distributions)
                worker = int(np.argmin(free))
                cost = Cost(0.02, 0.4, len(TASKS) * ITEMS["search"], began=1.7e9 + free[worker])
                free[worker] += 0.45
                rate = 0.2 + 0.6 * number / trials
                found = draw.outcome("search", rate, cost, f"node/{1000 + worker}", number)
                values = None
                if found.failure is None:
                    means = [one.values["exact_match"].value for one in found.scores.values()]
                    values = (
                        means
                        if len(store.campaign.objectives) > 1 and (store.campaign.mode == "pareto")
                        else [float(np.mean(means))]
                    )
                store.told(entry, found, values, pruned=found.pruned is not None)


def _record(store: Store, entries: Sequence[Entry], split: Split, draw: _Draw) -> None:
    for entry in entries:
        store.record(Job(entry, split), draw.outcome(split, 0.5, Cost(0.1, 1.0, 320), "node/1"))


class _Draw:
    """Points and outcomes, the same in every run."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)

    def point(self, space: Space) -> dict[str, float]:
        values = self._rng.uniform(-0.5, 2.0, len(space.distributions))
        return dict(zip(space.distributions, values.tolist(), strict=True))

    def merge(self, space: Space, weight: float) -> Any:
        return space.candidate(dict.fromkeys(space.distributions, weight))

    def outcome(
        self, split: Split, rate: float, cost: Cost, worker: str, number: int | None = None
    ) -> Outcome:
        if number is not None and number % 50 == 49:
            failure = Failure(FailureKind.NOT_FINITE, f"NaN in layer {number % 4}")
            return Outcome(failure=failure, cost=cost, worker=worker)
        pruned = number is not None and number % 3 == 2
        scores = {task: self._scores(task, split, rate, pruned=pruned) for task in TASKS}
        lost = Pruned("trial 0 is significantly better", 2) if pruned else None
        return Outcome(scores, cost=cost, worker=worker, pruned=lost)

    def _scores(self, task: str, split: Split, rate: float, *, pruned: bool) -> TaskScores:
        count = ITEMS[split] // (4 if pruned else 1)
        places = self._rng.permutation(ITEMS[split])[:count] if pruned else range(count)
        ids = _ids(task, split)
        matches = (self._rng.random(count) < rate).astype(float)
        losses = -self._rng.exponential(1.0, count)
        values = {METRICS[0]: losses, METRICS[1]: matches}
        return TaskScores(
            tuple(ids[place] for place in places),
            {name: tuple(each.tolist()) for name, each in values.items()},
            {name: Estimate(float(each.mean()), 0.05) for name, each in values.items()},
        )


def _ids(task: str, split: Split) -> list[str]:
    return [f"{task}-{split}-{number:04x}" for number in range(ITEMS[split])]


def _facts() -> dict[str, Any]:
    return {
        "versions": {"evomerge": "0.1.0", "lm_eval": "0.4.13"},
        "items": {task: {split: _ids(task, split) for split in SPLITS} for task in TASKS},
        "higher_is_better": {task: dict.fromkeys(METRICS, True) for task in TASKS},
    }


def _campaign(out: Path, trials: int, *, pareto: bool) -> Campaign:
    return Campaign.model_validate(
        {
            "name": "long",
            "models": {"base": "/m/base", "experts": [f"/m/{name}" for name in EXPERTS]},
            "space": {
                "method": "task_arithmetic",
                "layers": LAYERS,
                "components": ["self_attn", "mlp"],
                "parameters": {"weight": {"low": -0.5, "high": 2.0}},
            },
            "mode": "pareto" if pareto else "mean",
            "objectives": [{"task": task, "metric": "exact_match"} for task in TASKS],
            "items": ITEMS,
            "search": {"trials": trials, "finalists": 8, "sampler": "nsga2" if pareto else "cmaes"},
            "out": str(out),
        }
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--studies", nargs="+", choices=STUDIES, default=STUDIES)
    parser.add_argument("--reports", nargs="+", choices=REPORTS, default=tuple(REPORTS))
    parser.add_argument("--folder", type=Path, help="where studies are written; default: temporary")
    parser.add_argument("--out", type=Path, default=Path("results/speed/reports.json"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
