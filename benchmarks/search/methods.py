r"""A searched method against each of the methods searched alone, at equal budgets of trials, on the zoo.

    python -m benchmarks.search.methods [--samplers gradient cmaes tpe] [--seeds 0 1] [--trials 120]

The space is that of `search_spaces/searched_method.yaml` (one group of layers; a weight and a density an
expert), searched over all four methods at once, over all four and subsets of the experts, and over each
method alone. `search` is the best value on the search items, `holdout` that of the winner: the best on
`select` of the four best on `search`, as in a campaign. A searched method is compared with the method that
somebody would have chosen who had searched each of them alone, at the same budget each, with the same sampler
and seed: the one with the best `search`. The last table has the mean difference over seeds, with its standard
error. 120 trials take about a minute on an idle core at 32 items, so the default two hours, and

    python -m benchmarks.search.methods --spaces searched task_arithmetic ties dare_linear dare_ties \
        --samplers gradient cmaes tpe --seeds 0 1 2 3 --items 32

about one.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks.search.samplers import Bench, Run

METHODS = ("task_arithmetic", "ties", "dare_linear", "dare_ties")
WEIGHT = {"low": 0.0, "high": 1.2}
DENSITY = {"low": 0.2, "high": 1.0, "per": ["expert"]}
BOTH = {"weight": WEIGHT, "density": DENSITY}
SPACES: dict[str, dict[str, Any]] = {
    "searched": {"method": list(METHODS), "parameters": BOTH},
    "searched, subsets": {"method": list(METHODS), "parameters": BOTH, "subsets": True},
    "task_arithmetic": {"method": "task_arithmetic", "parameters": {"weight": WEIGHT}},
    **{name: {"method": name, "parameters": BOTH} for name in METHODS[1:]},
}
_UNBOUNDED = 10**9  # item evaluations: trials are the budget


def main() -> None:
    """Print a table, and write every run as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spaces", nargs="+", default=list(SPACES), choices=list(SPACES))
    parser.add_argument("--samplers", nargs="+", default=["gradient", "cmaes", "tpe"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--trials", type=int, default=120)
    parser.add_argument("--items", type=int, default=64, help="search and select items of a task")
    parser.add_argument("--holdout", type=int, default=200, help="held-out items of a task")
    parser.add_argument("--out", type=Path, default=Path("results/search/methods.json"))
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    items = {"search": options.items, "select": options.items, "holdout": options.holdout}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    runs: list[Run] = []
    for space in options.spaces:
        settings = {"layers": 1, **SPACES[space]}
        bench = Bench(space, items, _UNBOUNDED, settings, options.trials)
        for sampler in options.samplers:
            for seed in options.seeds:
                runs.append(bench.run(sampler, seed))
                options.out.write_text(json.dumps([asdict(run) for run in runs], indent=1) + "\n")
    print(table(runs), flush=True)


def table(runs: Sequence[Run]) -> str:
    """Return a Markdown table, one row a run, and one of the differences to the best method alone."""
    lines = [
        "| sampler | seed | space | search | holdout | trials of each method | experts taking part |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    differences: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for run in sorted(runs, key=lambda run: (run.sampler, run.seed)):
        cells = [
            f"{run.search:.3f}",
            f"{run.holdout:.3f}",
            _counts(run.methods),
            _counts(run.experts),
        ]
        lines.append(f"| {run.sampler} | {run.seed} | {run.space} | {' | '.join(cells)} |")
        alone = [
            one
            for one in runs
            if (one.sampler, one.seed) == (run.sampler, run.seed) and one.space in METHODS
        ]
        if alone and run.space not in METHODS:
            best = max(alone, key=lambda one: one.search)
            found = differences.setdefault((run.sampler, run.space), [])
            found.append((run.search - best.search, run.holdout - best.holdout))
    lines += [
        "",
        "| sampler | space | seeds | search | holdout |",
        "| --- | --- | --- | --- | --- |",
    ]
    for (sampler, space), pairs in differences.items():
        cells = [_mean(values) for values in zip(*pairs, strict=True)]
        lines.append(f"| {sampler} | {space} | {len(pairs)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _mean(values: Sequence[float]) -> str:
    """Return a mean with its standard error over seeds."""
    error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{fmean(values):+.4f} ± {error:.4f}"


def _counts(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{name}: {counts[name]}" for name in sorted(counts))


if __name__ == "__main__":
    main()
