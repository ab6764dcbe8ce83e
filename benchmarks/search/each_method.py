r"""Every merge method at its best: which one to begin with.

    python -m benchmarks.search.each_method [--methods ties ...] [--samplers cmaes gradient] [--seeds 0 1 2]
    python -m benchmarks.search.each_method --models results/smollm2_models --items 8 --holdout 100

Each method searches its own numbers for 60 trials: a weight an expert where it has weights (one group of
layers), and the numbers by which it is usually tuned (its scale, density, threshold), shared by the experts.
`cmaes` learns from scores alone; `gradient`, where the method has gradients, descends along those of the
campaign's usual loss, by group and, where the method takes them, by tensor and row. Both start from the best
naive merge. The winner is the best on `select` of the four best on `search`; `holdout` is its exact match,
mean and spread over seeds; a method without numbers is scored as it is. Methods of two models (slerp,
nuslerp, nearswap, arcee_fusion) cannot merge five experts and are left out.

`--models` takes a family that `benchmarks/smollm2/build.py` made, and searches by the log-likelihood of the
gold answers: exact match tells little on so few items of a real task. `finer` is that of the holdout items.

Runs are added to one JSON file, so that a long run can be split; a run that is there is not done again.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks.search._few_items import FINER, METRIC, Suite
from benchmarks.search.samplers import Bench
from evomerge.candidate.trial import Outcome
from evomerge.merge.methods import METHODS

WEIGHT = {"low": 0.0, "high": 1.2}
SHARE = {"low": 0.05, "high": 1.0}
SCALE = {"low": 0.5, "high": 2.5, "per": []}
FACTOR = {"low": 0.1, "high": 2.5, "log": True, "per": []}
DENSITY = {"low": 0.2, "high": 1.0, "per": []}
EPSILON = {"low": 1e-6, "high": 1e-2, "log": True, "per": []}
RIDGE = {"low": 1e-3, "high": 1.0, "log": True, "per": []}
UNIT = {"low": 0.0, "high": 1.0, "per": []}
SPARSE = {"weight": WEIGHT, "density": DENSITY}
RANGES: dict[str, dict[str, Any]] = {
    "linear": {"weight": SHARE},
    "multislerp": {"weight": SHARE},
    "karcher": {},
    "model_stock": {},
    "task_arithmetic": {"weight": WEIGHT},
    "task_arithmetic, calibrated": {"weight": WEIGHT, "calibrate": True},
    "regmean": {"weight": SHARE, "lambda": FACTOR, "ridge": RIDGE},
    "tsv": {"weight": WEIGHT},
    "iso_c": {"weight": WEIGHT},
    "iso_cts": {"weight": WEIGHT},
    "ties": {"weight": SHARE, "density": DENSITY, "lambda": SCALE},
    "dare_linear": SPARSE,
    "dare_ties": SPARSE,
    "breadcrumbs": SPARSE,
    "breadcrumbs_ties": SPARSE,
    "della": {"weight": SHARE, "density": DENSITY, "lambda": SCALE},
    "della_linear": SPARSE,
    "sce": {"select_topk": SHARE | {"per": []}},
    "ram": {"epsilon": EPSILON},
    "ramplus_tl": {"epsilon": EPSILON, "r": UNIT, "alpha": UNIT},
}
"""Method, and how → what is searched of it; nothing: it has no number to search."""
CORE_SPACE = {
    f"{name}, core space": RANGES[name] | {"core_space": True}
    for name in ("regmean", "tsv", "iso_c", "iso_cts", "ties", "dare_ties", "breadcrumbs", "sce")
}
"""The same of adapters, merged as core matrices."""
_UNBOUNDED = 10**9
Row = Mapping[str, Any]


def main() -> None:
    """Run what is not there yet, and print the table of all that is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--methods", nargs="+", default=list(RANGES), choices=[*RANGES, *CORE_SPACE]
    )
    parser.add_argument("--samplers", nargs="+", default=["cmaes", "gradient"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument(
        "--evaluations",
        type=int,
        default=_UNBOUNDED,
        help="item evaluations of one search, of which a gradient's item is three [no limit]",
    )
    parser.add_argument("--items", type=int, default=64, help="search and select items of a task")
    parser.add_argument("--holdout", type=int, default=200, help="held-out items of a task")
    parser.add_argument("--models", type=Path, help="a built family, instead of the zoo")
    parser.add_argument("--dtype", default="bfloat16", help="of its merges")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="[%(default)s]")
    parser.add_argument("--out", type=Path, default=Path("results/search/each_method.json"))
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    suite, metric = Suite.zoo(), METRIC
    if options.models is not None:
        suite, metric = Suite.built(options.models, options.dtype), FINER
    suite = replace(suite, device=options.device)
    known: dict[str, Outcome] = {}
    items = {"search": options.items, "select": options.items, "holdout": options.holdout}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = json.loads(options.out.read_text()) if options.out.exists() else []
    done = {(row["space"], row["sampler"], row["seed"]) for row in rows}
    ranges = RANGES | CORE_SPACE
    for name in options.methods:
        wanted = [
            (sampler, seed)
            for sampler in _samplers(name, options.samplers)
            for seed in (options.seeds if ranges[name] else options.seeds[:1])
            if (name, sampler, seed) not in done
        ]
        if not wanted:
            continue
        searched = name if ranges[name] else "task_arithmetic"
        method = searched.partition(",")[0]
        settings = {"method": method, "layers": 1, "parameters": ranges[searched]}
        budget = options.evaluations, settings, options.trials
        for row in _found(name, Bench(name, items, *budget, suite, metric, known), wanted):
            rows.append(row)
            options.out.write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows), flush=True)


def _found(name: str, bench: Bench, wanted: Sequence[tuple[str, int]]) -> Iterator[Row]:
    """Yield what samplers find, seed by seed; of a method with nothing to search what it is."""
    for sampler, seed in wanted:
        if (RANGES | CORE_SPACE)[name]:
            yield asdict(bench.run(sampler, seed))
        else:
            row = {"space": name, "sampler": sampler, "seed": seed, "seconds": 0.0}
            yield row | bench.as_it_is(name)


def _samplers(method: str, samplers: Sequence[str]) -> list[str]:
    """Return the samplers that can search a method; of a method without numbers, the first."""
    searched = (RANGES | CORE_SPACE)[method]
    if not searched:
        return list(samplers[:1])
    learns = METHODS[method.partition(",")[0]].gradients is not None and "weight" in searched
    return [one for one in samplers if one != "gradient" or learns]


def table(rows: Sequence[Row]) -> str:
    """Return a Markdown table, a row a method, the best on holdout first."""
    samplers = list(dict.fromkeys(row["sampler"] for row in rows))
    found: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        found.setdefault(row["space"], {}).setdefault(row["sampler"], []).append(row)
    shown = ("search", "holdout", "finer")
    heads = [f"{sampler}: {what}" for sampler in samplers for what in (*shown, "s")]
    lines = [
        "| method | " + " | ".join(heads) + " |",
        "| --- |" + " ---: |" * len(heads),
    ]

    def best(name: str) -> float:
        return max(fmean(row["holdout"] for row in runs) for runs in found[name].values())

    for name in sorted(found, key=best, reverse=True):
        cells = []
        for sampler in samplers:
            runs = found[name].get(sampler)
            if runs is None:
                cells += [""] * (len(shown) + 1)
                continue
            cells += [_spread([row[what] for row in runs]) for what in shown]
            cells.append(f"{fmean(row['seconds'] for row in runs):.0f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.3f}"
    return f"{fmean(values):.3f} ± {stdev(values):.3f}"


if __name__ == "__main__":
    main()
