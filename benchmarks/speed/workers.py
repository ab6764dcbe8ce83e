"""Two workers against one: trials a minute of `evomerge search` on the zoo, one thread a worker.

    python -m benchmarks.speed.workers [--workers 1 2] [--trials 60] [--rounds 3]

The runs take turns, so only the ratio within one call means something; the machine must have a core for each
worker that is otherwise idle. Rates are steady ones: from the end of the first trial to the end of the last.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.speed import _campaigns

TASKS_PATH = Path(__file__).parents[1] / "tasks"
JOBS = ("extraction", "dialogue", "tools", "translation", "facts")
AIM = 1.8
"""Of two workers on two cores."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print trials a minute and the ratio to one worker, and write them as JSON."""
    options = _options(arguments)
    rates: dict[int, list[float]] = {workers: [] for workers in options.workers}
    with tempfile.TemporaryDirectory(prefix="workers-") as folder:
        for turn in range(options.rounds):
            for workers in options.workers:
                here = Path(folder) / f"{workers}-{turn}"
                rates[workers].append(_trials_a_minute(workers, options, here))
                print(f"{workers} workers: {rates[workers][-1]:.0f} trials a minute", flush=True)
    least = min(rates)
    ratios = {workers: median(rates[workers]) / median(rates[least]) for workers in rates}
    for workers, ratio in ratios.items():
        print(f"{workers} workers against {least}: {ratio:.2f}")
    report = {"aim": AIM, "load": os.getloadavg(), "trials_a_minute": rates, "ratios": ratios}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _trials_a_minute(workers: int, options: argparse.Namespace, folder: Path) -> float:
    settings = _campaigns.campaign(
        "zoo:base",
        {job: f"zoo:{job}" for job in JOBS},
        {
            "method": "task_arithmetic",
            "layers": "each",
            "parameters": {"weight": {"low": -0.5, "high": 1.5}},
        },
        [{"task": f"zoo_{job}", "metric": "exact_match"} for job in JOBS],
        TASKS_PATH,
        {"search": options.items, "select": 8, "holdout": 8, "from": {}},
        {"sampler": "cmaes", "trials": options.trials, "seed": 0, "pruner": "none"},
        workers=workers,
    )
    return _campaigns.search(settings, folder).per_minute


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--items", type=int, default=64, help="search items of a task")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results/speed/workers.json"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
