"""Whole trials: `evomerge search` against `mergekit-evolve --in-memory --strategy pool`, on the zoo.

    python -m benchmarks.speed.trials [--shots 0 5] [--minutes 0.5] [--peer-evaluations 2]

Both search the same space (TIES; a weight and a density for each expert and layer group) with CMA-ES, on the
same two four-choice tasks, with as many workers of one thread each. mergekit-evolve runs unmodified in a
virtual environment of its own, which the first run builds (`--peer-env`). Before that it is checked that
its libraries make the same tokens, logits and requests of models and tasks as ours.

Rates are steady ones. Ours: from the end of the first trial to the end of the last. The peer's: of each
worker, from its model's readiness to the end of its last whole evaluation. Start-up stands apart. The two
run in turn (ours, the peer, ours), so only ratios within one run mean something; where other work shares
the machine, look at the ratio of processor seconds too.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.speed import _campaigns, _mergekit_evolve
from benchmarks.speed._exports import export_models, write_tasks
from benchmarks.speed._processes import Line, end_on_sigterm

AIMS = {0: 12.0, 5: 40.0}
JOBS = ("extraction", "tools")
EXPERTS = ("extraction", "dialogue", "tools", "translation", "facts")
ITEMS, OTHERS = 200, 32
TRIALS = 1_000_000
"""More than any time allows: the budget is time."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    shots: int
    ours_per_minute: float
    peer_per_minute: float
    ratio: float
    cpu_ratio: float
    aim: float | None
    ours_trials: int
    peer_evaluations: int
    ours_cpu_seconds: float
    peer_cpu_seconds: float
    ours_start_up: float
    peer_start_up: float
    load: tuple[float, float, float]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table of rates and ratios, and write it as JSON."""
    options = _options(arguments)
    programs = _mergekit_evolve.build_environment(options.peer_env)
    rows = []
    with tempfile.TemporaryDirectory(prefix="trials-") as folder:
        models = export_models(Path(folder) / "models", ("base", *EXPERTS))
        print(_head(), flush=True)
        for shots in options.shots:
            row = _row(shots, models, Path(folder) / f"{shots}-shot", programs, options)
            print(_line(row), flush=True)
            rows.append(asdict(row))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    pins = _mergekit_evolve.PINS.read_text(encoding="utf-8").split("\n")
    report = {"workers": options.workers, "items": ITEMS, "peer": pins[1:-1], "rows": rows}
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def summary(
    shots: int, ours: Sequence[_campaigns.Progressed], peer: _mergekit_evolve.Timeline
) -> Row:
    """Put the measurements of one number of examples together."""
    trials = sum(run.trials for run in ours)
    minutes = sum(run.trials / run.per_minute for run in ours)
    cpu = sum(run.trials * run.cpu_seconds_each for run in ours) / trials
    return Row(
        shots=shots,
        ours_per_minute=trials / minutes,
        peer_per_minute=peer.per_minute,
        ratio=trials / minutes / peer.per_minute,
        cpu_ratio=peer.cpu_seconds_each / cpu,
        aim=AIMS.get(shots),
        ours_trials=trials,
        peer_evaluations=peer.evaluations,
        ours_cpu_seconds=cpu,
        peer_cpu_seconds=peer.cpu_seconds_each,
        ours_start_up=ours[0].start_up,
        peer_start_up=peer.start_up,
        load=os.getloadavg(),
    )


def _row(
    shots: int,
    models: dict[str, Path],
    folder: Path,
    programs: Path,
    options: argparse.Namespace,
) -> Row:
    tasks_path = folder / "tasks"
    tasks_path.mkdir(parents=True)
    counts = {"train": 32, "validation": 2 * OTHERS, "test": ITEMS}
    tasks = write_tasks(tasks_path, "choice", JOBS, counts, shots)
    _mergekit_evolve.check_agreement(
        programs / "python", models["extraction"], tasks_path, tasks, ITEMS
    )
    campaign = _campaigns.campaign(
        "zoo:base",
        {name: f"zoo:{name}" for name in EXPERTS},
        _space(),
        [{"task": task, "metric": "acc"} for task in tasks],
        tasks_path,
        {"search": ITEMS, "select": OTHERS, "holdout": OTHERS},
        {
            "sampler": "cmaes",
            "trials": TRIALS,
            "hours": options.minutes / 60,
            "finalists": 1,
        },
        workers=options.workers,
        dtype=options.dtype,
    )
    ours = [_campaigns.search(campaign, folder / "ours-before")]
    peer = _mergekit_evolve.evolve(
        programs,
        _mergekit_evolve.genome(
            models["base"],
            [models[name] for name in EXPERTS],
            "ties",
            dict.fromkeys(tasks, "acc,none"),
            limit=ITEMS,
            layer_granularity=2,
        ),
        tasks_path,
        folder / "peer",
        workers=options.workers,
        evaluations=TRIALS,
        watch=_enough(options),
    )
    ours.append(_campaigns.search(campaign, folder / "ours-after"))
    return summary(shots, ours, peer)


def _space() -> dict[str, object]:
    return {
        "method": "ties",
        "layers": 2,
        "parameters": {
            "weight": {"low": 0.0, "high": 1.5},
            "density": {"low": 0.1, "high": 1.0},
            "normalize": True,
        },
    }


def _enough(
    options: argparse.Namespace,
) -> Callable[[_mergekit_evolve.Timeline, Line], bool]:
    """Say when the peer has run long enough: whole evaluations of every worker."""

    def enough(timeline: _mergekit_evolve.Timeline, line: Line) -> bool:
        late = line.seconds > 60 * options.peer_minutes
        wanted = 1 if late else options.peer_evaluations
        ends = list(timeline.ended.values())
        return len(ends) == options.workers and all(len(times) >= wanted for times in ends)

    return enough


def _head() -> str:
    names = ("", "ours", "peer", "ratio", "of CPU s", "start-up: ours", "peer")
    return "{:8}{:>11}{:>11}{:>9}{:>10}{:>16}{:>9}".format(*names)


def _line(row: Row) -> str:
    aim = "" if row.aim is None else f"   (aim: {row.aim:g} ×)"
    return (
        f"{row.shots}-shot  {row.ours_per_minute:7.1f}/min{row.peer_per_minute:7.2f}/min"
        f"{row.ratio:7.1f} ×{row.cpu_ratio:8.1f} ×{row.ours_start_up:14.0f} s{row.peer_start_up:7.0f} s"
        f"{aim}   {row.ours_trials} trials, {row.peer_evaluations} evaluations, load {row.load[0]:.1f}"
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shots", type=int, nargs="+", default=[0, 5])
    parser.add_argument("--minutes", type=float, default=0.5, help="of ours, twice")
    parser.add_argument(
        "--peer-evaluations", type=int, default=6, help="of each of its workers, then it is stopped"
    )
    parser.add_argument(
        "--peer-minutes", type=float, default=5.0, help="after which one of each worker is enough"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--dtype", default="float32", help="ours; the peer knows bfloat16 only")
    parser.add_argument("--peer-env", type=Path, default=_mergekit_evolve.CACHE)
    parser.add_argument("--out", type=Path, default=Path("results/speed/trials.json"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    end_on_sigterm()
    main()
