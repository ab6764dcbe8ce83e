"""Samplers compared on the zoo at equal item evaluations: several spaces, several seeds.

    python -m benchmarks.search.samplers [--spaces 10 40 120] [--samplers gradient cmaes ...] [--seeds 0 1]

Every entrant searches the same space on the same items, scored by the same evaluator in this process, one
thread. An item of a gradient counts as three item evaluations (a backward pass as two more). All of them
know parents and naive merges, tuned task arithmetic among them, and start from the best, but for
`mergekit`: CMA-ES with mergekit-evolve's settings (x0 = 1/n, σ = 1/6 of a weight, no knowledge). Names may
carry `+race` (racing: as many trials, and what they save shows in the item evaluations). Ideas that were
tried and are no samplers of the package are entrants too: `catcmawm`, `cmaes-blocks`, `cmaes-norms`,
`cmaes-screened` (`_variants`).
The space `mixed` also searches the method, densities, and which experts take part.

The winner is the best on `select` of the four best on `search`, as in a campaign; its mean on the holdout
items is what counts. `curve` is the mean over item evaluations of the best search value so far. `ready` is
how many item evaluations it took to find a candidate that held 0.80 of the search items. `equal time` is
the best search value after as many processor seconds as the fastest entrant took in all. All metrics are
teacher-forced exact match (`gold_exact_match`), which equals generation here and costs one pass.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice, pairwise
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.search._few_items import FINER, METRIC, Suite
from benchmarks.search._variants import ENTRANTS
from evomerge.candidate import Merge
from evomerge.candidate.trial import Entry, Job, Outcome, Split
from evomerge.config import Campaign
from evomerge.merge.methods import METHODS
from evomerge.objective import Objectives
from evomerge.preflight.check import Preflight, preflight
from evomerge.run import setup_of
from evomerge.search.history import Known
from evomerge.search.racing import race_of
from evomerge.search.study import Study
from evomerge.store import Store
from evomerge.workers.evaluator import Evaluator
from evomerge.workers.pool import answer

WEIGHT = {"low": -0.5, "high": 1.5}
SPACES: dict[str, dict[str, Any]] = {
    "10": {"method": "task_arithmetic", "layers": 2, "parameters": {"weight": WEIGHT}},
    "40": {
        "method": "task_arithmetic",
        "layers": 4,
        "components": ["self_attn"],
        "parameters": {"weight": WEIGHT},
    },
    "120": {
        "method": "dare_linear",
        "layers": 4,
        "components": ["self_attn", "mlp"],
        "parameters": {"weight": WEIGHT, "density": {"low": 0.5, "high": 1.0}},
    },
    "mixed": {
        "method": ["task_arithmetic", "ties", "dare_linear"],
        "layers": 4,
        "subsets": True,
        "parameters": {"weight": WEIGHT, "density": {"low": 0.5, "high": 1.0}},
    },
}
FINALISTS = 4
READY = 0.8


@dataclass(frozen=True)
class Run:
    """One search.

    Attributes:
        space: By its number of dimensions; `mixed` has methods, densities and who takes part.
        sampler: Entrant.
        seed: Of the search.
        holdout: Exact match of the winner on the holdout items.
        finer: Mean log-likelihood of their gold answers.
        search: Mean of the winner on the search items.
        curve: Mean over item evaluations of the best search value so far.
        ready: Item evaluations until a candidate reached `READY` on the search items; None: never.
        items: Item evaluations spent.
        trials: Candidates asked for.
        seconds: Of processor time for the search, scoring included.
        rises: (processor seconds, value) whenever the best search value rose.
        methods: Merge method → trials of it.
        experts: Number of experts that took part → trials of so many.
    """

    space: str
    sampler: str
    seed: int
    holdout: float
    finer: float
    search: float
    curve: float
    ready: int | None
    items: int
    trials: int
    seconds: float
    rises: tuple[tuple[float, float], ...]
    methods: Mapping[str, int]
    experts: Mapping[int, int]

    def at(self, seconds: float) -> float:
        """Return the best search value after so many seconds; 0 before the first."""
        return max((value for when, value in self.rises if when <= seconds), default=0.0)


class Bench:
    """One space: its evaluator, and its parents and naive merges, scored once.

    Args:
        space: What to call it: a name of `SPACES`, or of `settings`.
        items: Split → items a task.
        budget: Item evaluations of one search.
        settings: The campaign's `space`; None: that of the name.
        trials: Budget of trials; None: as many as the item evaluations allow.
        suite: Models and tasks; None: the zoo's.
        metric: What is searched for.
        known: Parents and naive merges scored before, by their key; added to.
    """

    def __init__(
        self,
        space: str,
        items: dict[str, int],
        budget: int,
        settings: dict[str, Any] | None = None,
        trials: int | None = None,
        suite: Suite | None = None,
        metric: str = METRIC,
        known: dict[str, Outcome] | None = None,
    ) -> None:
        self.space, self._budget, self._trials, self._metric = space, budget, trials, metric
        self._space = SPACES[space] if settings is None else settings
        suite = Suite.zoo() if suite is None else suite
        tasks = [suite.task(job) for job in suite.jobs]
        self._settings: dict[str, Any] = {
            "name": "samplers",
            "models": {
                "base": suite.models["base"],
                "experts": [suite.models[job] for job in suite.jobs],
                "dtype": suite.dtype,
            },
            "objectives": [{"task": task, "metric": metric} for task in tasks],
            "tasks_path": str(suite.tasks_path),
            "items": items | ({"from": dict(suite.drawn_from)} if suite.drawn_from else {}),
            "workers": {"count": 0, "gpus": int(suite.device == "cuda")},
        }
        self._ready = self._preflight("cmaes", 0, self._space)
        self._evaluator = Evaluator(setup_of(self._ready))
        self._metrics = dict.fromkeys(tasks, (metric,))
        known = {} if known is None else known
        rows = self._ready.space.baselines()
        for row in rows:
            if row.key not in known:
                known[row.key] = self._score(Entry(row.name, row.candidate), "search")
        self._parents = {row.name: (row, known[row.key]) for row in rows}

    def as_it_is(self, method: str) -> dict[str, float]:
        """Return what a method scores on search and holdout items with no number given."""
        family = self._ready.space.family
        experts, told_apart = tuple(family.experts.values()), METHODS[method].uses_base
        entry = Entry(method, Merge(method, experts, family.base, merges_base=told_apart))
        return {"search": self._mean(self._score(entry, "search"))} | self._held_out(entry)

    def run(self, entrant: str, seed: int) -> Run:
        """Search once."""
        sampler, *variants = entrant.split("+")
        space = dict(self._space)
        name = "cmaes" if sampler in ENTRANTS else sampler
        ready = self._preflight(name, seed, space, racing="race" in variants)
        with tempfile.TemporaryDirectory() as folder, _store(ready, Path(folder)) as store:
            for row, outcome in self._parents.values():
                store.record(Job(row.entry, "search"), outcome)
            study = self._study(ready, store, sampler)
            start = time.process_time()
            timed = [(*point, time.process_time() - start) for point in self._curve(study)]
            seconds = time.process_time() - start
            winner, searched = self._winner(study)
            recipes = [trial.candidate for trial in store.trials()]
        held_out = self._held_out(winner)
        curve = [(items, value) for items, value, _ in timed]
        found = [items for items, value in curve if value >= READY]
        return Run(
            self.space,
            entrant,
            seed,
            held_out["holdout"],
            held_out["finer"],
            searched,
            _area(curve, self._budget),
            found[0] if found else None,
            study.tally.items,
            study.tally.asked,
            seconds,
            tuple(_rises(timed)),
            dict(Counter(recipe.method for recipe in recipes)),
            dict(Counter(map(_taking_part, recipes))),
        )

    def _preflight(
        self, sampler: str, seed: int, space: dict[str, Any], *, racing: bool = False
    ) -> Preflight:
        search = {
            "sampler": sampler,
            "trials": self._trials or max(1, self._budget // self._items_a_trial),
            "item_evaluations": self._budget,
            "seed": seed,
            "pruner": "race" if racing else "none",
        }
        return preflight(
            Campaign.model_validate({**self._settings, "space": space, "search": search})
        )

    @property
    def _items_a_trial(self) -> int:
        return len(self._metrics) * int(self._settings["items"]["search"])

    def _study(self, ready: Preflight, store: Store, sampler: str) -> Study:
        aims = Objectives.of(ready.campaign, store.facts, store.evaluations(), "search")
        points = {row.name: row.params for row in ready.space.baselines()}
        known = [Known(outcome, points[row.name]) for row, outcome in self._parents.values()]
        ids = {task: ready.items.ids(task, "search") for task in self._metrics}
        racing = ready.campaign.search.pruner != "none"
        entrant = ENTRANTS.get(sampler)
        return Study(
            ready.space,
            aims,
            store,
            known=known,
            first=ready.space.first(),
            counts={task: len(each) for task, each in ids.items()},
            race=race_of(aims, ids) if racing else None,
            sampler=None if entrant is None else entrant(ready),
        )

    def _curve(self, study: Study) -> Iterator[tuple[int, float]]:
        """Search until the budget is spent; yield (item evaluations, best value so far)."""
        while (work := study.ask()) is not None:
            study.tell(work, answer(self._evaluator, work))
            if study.tally.best_value is not None:
                yield study.tally.items, study.tally.best_value

    def _winner(self, study: Study) -> tuple[Entry, float]:
        chosen = list(islice(study.finalists(), FINALISTS))
        select = [self._mean(self._score(one, "select")) for one in chosen]
        best = chosen[int(np.argmax(select))]
        return best, self._mean(self._score(best, "search"))

    def _held_out(self, candidate: Entry) -> dict[str, float]:
        outcome = self._score(candidate, "holdout", (METRIC, FINER))
        return {"holdout": self._mean(outcome, METRIC), "finer": self._mean(outcome, FINER)}

    def _score(self, candidate: Entry, split: Split, metrics: Sequence[str] = ()) -> Outcome:
        asked = dict.fromkeys(self._metrics, tuple(metrics)) if metrics else self._metrics
        outcome = self._evaluator.evaluate(Job(candidate, split, asked))
        if outcome.failure is not None:
            raise SystemExit(f"{candidate.name} failed: {outcome.failure.reason}")
        return outcome

    def _mean(self, outcome: Outcome, metric: str | None = None) -> float:
        wanted = metric or self._metric
        return fmean(scores.values[wanted].value for scores in outcome.scores.values())


def main() -> None:
    """Print a table a space, and write every run as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spaces", nargs="+", default=["10", "40", "120"], choices=list(SPACES))
    parser.add_argument(
        "--samplers",
        nargs="+",
        default=[
            "gradient", "cmaes", "cmaes+race", "tpe", "tpe+race", "nsga2",
            "random", "random+race", "qmc", "mergekit",
        ],
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--budget", type=int, default=19_200, help="item evaluations of one search")
    parser.add_argument("--items", type=int, default=64, help="search and select items of a task")
    parser.add_argument("--holdout", type=int, default=200, help="held-out items of a task")
    parser.add_argument("--out", type=Path, default=Path("results/search/samplers.json"))
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    items = {"search": options.items, "select": options.items, "holdout": options.holdout}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    runs: list[Run] = []
    for space in options.spaces:
        bench = Bench(space, items, options.budget)
        jobs = [(sampler, seed) for seed in options.seeds for sampler in options.samplers]
        for sampler, seed in tqdm(jobs, desc=f"{space} dimensions", mininterval=10):
            runs.append(bench.run(sampler, seed))
            options.out.write_text(json.dumps([asdict(run) for run in runs], indent=1) + "\n")
        print(table([run for run in runs if run.space == space]), flush=True)


def table(runs: Sequence[Run]) -> str:
    """Return a Markdown table of means and standard deviations, the best holdout first."""
    names = list(dict.fromkeys(run.sampler for run in runs))
    grouped = {name: [run for run in runs if run.sampler == name] for name in names}
    lines = [
        f"| {runs[0].space} dimensions | holdout | search | curve | evaluations to {READY} "
        "| all evaluations | s | equal time |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    least = min(fmean(run.seconds for run in rows) for rows in grouped.values())
    for name in sorted(names, key=lambda name: -fmean(run.holdout for run in grouped[name])):
        rows = grouped[name]
        ready = sorted(run.ready if run.ready is not None else 10**9 for run in rows)
        middle = ready[len(ready) // 2]
        cells = [_spread([get(run) for run in rows]) for get in _COLUMNS]
        reached = "never" if middle == 10**9 else f"{middle:,}"
        seconds = fmean(run.seconds for run in rows)
        items = fmean(run.items for run in rows)
        timed = _spread([run.at(least) for run in rows])
        lines.append(
            f"| {name} | {' | '.join(cells)} | {reached} | {items:,.0f} | {seconds:.0f} | {timed} |"
        )
    return "\n".join(lines) + "\n"


_COLUMNS: tuple[Callable[[Run], float], ...] = (
    lambda run: run.holdout,
    lambda run: run.search,
    lambda run: run.curve,
)


def _spread(values: Sequence[float]) -> str:
    spread = stdev(values) if len(values) > 1 else 0.0
    return f"{fmean(values):.3f} ± {spread:.3f}"


def _area(curve: Sequence[tuple[int, float]], budget: int) -> float:
    """Mean of a step function that is 0 before its first value."""
    total = 0.0
    for (start, value), (stop, _) in pairwise([*curve, (budget, 0.0)]):
        total += value * max(0, min(stop, budget) - start)
    return total / budget


def _rises(timed: Sequence[tuple[int, float, float]]) -> Iterator[tuple[float, float]]:
    best = -math.inf
    for _, value, seconds in timed:
        if value > best:
            best = value
            yield seconds, value


def _taking_part(merge: Merge) -> int:
    """Count the experts of which some weight is not 0."""
    if "weight" not in merge.own:
        return len(merge.experts)
    return int(np.any(merge.own["weight"], axis=(0, 1)).sum())


def _store(ready: Preflight, folder: Path) -> Store:
    campaign = ready.campaign.model_copy(update={"out": str(folder / "out")})
    facts = {
        "higher_is_better": {goal.task: {goal.metric: True} for goal in campaign.objectives},
        "first": [],
    }
    return Store.create(folder / "out", campaign, facts, directions=Objectives(campaign).directions)


if __name__ == "__main__":
    main()
