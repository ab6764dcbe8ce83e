"""The driver alone: how busy it keeps a cluster, and what a trial costs it, early and late in a campaign.

    python -m benchmarks.speed.driver [--samplers cmaes gradient ...] [--clusters 1000x30 64x0.5]
        [--trials 10000] [--charge wall]

Workers are simulated (`evomerge.testing.simulate`), in virtual time. The driver is the real one: sampler,
study database, search loop, pool; 40 weights, five tasks of 64 items. What it takes passes in virtual time,
too, so that workers wait for it: its wall time, or (`--charge cpu`) its processor time where other work on
the machine would be charged. What Ray itself takes for its calls is not in it. Each row has a process of its
own.

- busy: share of the workers' time in which they have work, until the last trial is handed out: without the
  end of the campaign, at which ever fewer trials are left.
- ms/trial: processor time of the driver for one trial, of a tenth of them: early, when each worker has had
  one, and late, as long as each still gets one.
- memory: what the driver's peak grew by; database: `study.db` at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from evomerge.candidate.trial import GradientJob, Gradients
from evomerge.config import Campaign
from evomerge.testing.simulate import SimulatedWorkers, simulate

SAMPLERS = ("gradient", "cmaes", "random", "qmc", "nsga2", "tpe")
CLUSTERS = ("1000x30", "64x0.5")
CHARGES = {"wall": time.perf_counter, "cpu": time.process_time}
EXPERTS, LAYERS = 5, 8
TASKS, ITEMS = 5, 64
AIM_BUSY = {"1000x30": 0.98, "64x0.5": 0.95}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        cluster: Number of workers, and seconds a candidate.
        busy: Share of the workers' time, as above.
        early: Milliseconds a trial.
        late: The same.
        memory: By which the driver's peak grew, MiB.
        database: MiB.
    """

    sampler: str
    cluster: str
    trials: int
    busy: float
    early: float
    late: float
    memory: float
    database: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table and write it as JSON."""
    options = _options(arguments)
    rows = []
    print("sampler   workers     busy  ms/trial early   late  memory  database", flush=True)
    for cluster in options.clusters:
        for sampler in options.samplers:
            with ProcessPoolExecutor(1, get_context("spawn")) as process:
                row = process.submit(
                    row_of, sampler, cluster, options.trials, options.charge, options.folder
                ).result()
            print(
                f"{row.sampler:8}  {row.cluster:8}  {row.busy:6.1%}  {row.early:14.2f}  {row.late:5.2f}"
                f"  {row.memory:6.0f}  {row.database:8.0f}",
                flush=True,
            )
            rows.append(asdict(row))
    report = {
        "aims": AIM_BUSY,
        "charge": options.charge,
        "load": os.getloadavg(),
        "rows": rows,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def row_of(sampler: str, cluster: str, trials: int, charge: str, folder: Path | None) -> Row:
    """Search once, with as many workers as a cluster has."""
    count, seconds = cluster.split("x")
    with tempfile.TemporaryDirectory(prefix="driver-", dir=folder) as temporary:
        out, before = Path(temporary) / "out", _peak()
        found = simulate(
            campaign(),
            outcomes,
            workers=SimulatedWorkers(int(count)),
            seconds=float(seconds),
            gradients=gradients,
            charged=CHARGES[charge],
            folder=out,
            sampler=sampler,
            trials=trials,
        )
        assert found.lost == 0
        database = (out / "study.db").stat().st_size / 2**20
    tenth, apart = trials // 10, min(int(1.5 * int(count)), trials // 4)  # some are asked for ahead
    early, late = (
        found.driver[start : start + tenth + 1] for start in (apart, trials - apart - tenth - 1)
    )
    return Row(
        sampler,
        cluster,
        trials,
        found.busy_before_end,
        1e3 * (early[-1] - early[0]) / tenth,
        1e3 * (late[-1] - late[0]) / tenth,
        _peak() - before,
        database,
    )


def campaign() -> Campaign:
    """Return a campaign over a family that does not exist."""
    return Campaign.model_validate(
        {
            "name": "driver",
            "models": {"base": "/m/base", "experts": [f"/m/e{n}" for n in range(EXPERTS)]},
            "space": {
                "method": "task_arithmetic",
                "layers": LAYERS,
                "parameters": {"weight": {"low": 0.0, "high": 1.2}},
            },
            "objectives": [{"task": f"task{n}", "metric": "acc"} for n in range(TASKS)],
            "items": {"search": ITEMS, "select": 4, "holdout": 4},
            "search": {"seed": 7, "pruner": "none"},
        }
    )


def outcomes(params: dict[str, float]) -> dict[str, list[float]]:
    """Return per-item values of 0 and 1 that are as many the nearer a point is to one, by task."""
    weights = np.array(list(params.values()))
    return {
        f"task{n}": (_CHANCES[n] < 1 - np.sqrt(np.mean((weights - best) ** 2)))
        .astype(float)
        .tolist()
        for n, best in enumerate(_BEST)
    }


def gradients(params: dict[str, float], job: GradientJob) -> Gradients:
    """Return the same gradients everywhere."""
    return Gradients(1.0, {}, {"weight": (((1e-3,) * EXPERTS,),) * LAYERS})


_DRAWS = np.random.default_rng(0)
_BEST = _DRAWS.uniform(0.0, 1.2, (TASKS, EXPERTS * LAYERS))
_CHANCES = _DRAWS.random((TASKS, ITEMS))


def _peak() -> float:
    """Return the most memory that this process has had, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--samplers", nargs="+", default=SAMPLERS)
    parser.add_argument("--clusters", nargs="+", default=CLUSTERS, help="WORKERSxSECONDS")
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--charge", choices=CHARGES, default="wall")
    parser.add_argument(
        "--folder", type=Path, help="where databases are written; default: temporary"
    )
    parser.add_argument("--out", type=Path, default=Path("results/speed/driver.json"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
