"""Time to quality on a 60-dimension space of the zoo: a sampler against mergekit-evolve.

    python -m benchmarks.speed.time_to_quality [--sampler gradient] [--seeds 0 1 2 3 4] [--skip peer ...]

Task arithmetic of five specialists, a weight for each expert, layer and component (self_attn, mlp, rest); the
mean exact match of the zoo's five generative tasks; 64 items of each task for the search, 64 to select, 200
held out. Every score on held-out items is taken by one engine, ours, whichever tool found the recipe.

items    The sampler in `evomerge search` against CMA-ES with mergekit-evolve's settings (x0 = 1/n, σ 1/6),
         both on our engine, in item evaluations, over seeds: how many until the best candidate so far
         holds, on held-out items, what the settings' best of all evaluations holds. An item of a
         gradient counts three times. With and without those of parents and baselines.
peer     The same against mergekit-evolve itself, in its own environment, in wall time; start-up apart.
tuning   Plain fine-tuning of the best naive merge on the same search items for as long as our search took;
         rate and length chosen on the select items.

Wall times of the two sides are taken one after the other, so only their ratio means something, and that
only on a machine whose load stays the same.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import datasets
import torch

from benchmarks.speed import _campaigns, _mergekit_evolve
from benchmarks.speed._exports import export_models, write_tasks
from benchmarks.speed._fine_tuning import fine_tune
from benchmarks.speed._processes import Line, end_on_sigterm
from benchmarks.speed._trajectories import (
    Step,
    best_of_campaign,
    incumbents,
    of_campaign,
    reached,
    with_mergekit_settings,
)
from benchmarks.speed._zoo_scorer import ZooScorer
from evomerge import candidate as recipe
from evomerge import zoo
from evomerge.candidate import Recipe
from evomerge.config import SpaceSettings
from evomerge.merge.methods import METHODS
from evomerge.space import Family, Space

JOBS = ("extraction", "dialogue", "tools", "translation", "facts")
LAYERS = 4
ITEMS = {"search": 64, "select": 64, "holdout": 200}
SPACE = {
    "method": "task_arithmetic",
    "layers": "each",
    "components": ["self_attn", "mlp"],
    "parameters": {"weight": {"low": -0.5, "high": 1.5}},
}
SHARE_OF_ITEMS, SHARE_OF_TIME, HIGHER = 1 / 20, 1 / 300, 0.10
"""Aims: of the settings' item evaluations, of the peer's wall time, and the holdout score at the end."""


@dataclass(frozen=True)
class Ours:
    """One campaign of ours.

    Attributes:
        seed: Of the search.
        steps: With the items of trials and gradients only; seconds since the search began.
        with_baselines: With those of parents and baselines too; seconds since workers stood ready.
        seconds: From the workers' readiness to the end of the search.
        winner: Chosen on the select items.
        naive: The best naive merge on them.
    """

    seed: int
    steps: list[Step]
    with_baselines: list[Step]
    seconds: float
    winner: Recipe
    naive: Recipe


class Bench:
    """Materials, and each comparison; what a comparison needs of another is run once.

    Args:
        folder: For files.
        options: Of the command line.
    """

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self._folder, self._options = folder, options
        datasets.config.HF_DATASETS_CACHE = folder / "cache"  # so that it goes with the files
        self._tasks_path = folder / "tasks"
        self._tasks_path.mkdir()
        validation = ITEMS["select"] + ITEMS["holdout"]
        counts = {"train": 1, "validation": validation, "test": ITEMS["search"]}
        self._tasks = write_tasks(self._tasks_path, "generation", JOBS, counts)
        self._items = {**ITEMS, "from": _campaigns.DRAWN}
        self._models = {name: str(zoo.resolve(f"zoo:{name}")) for name in ("base", *JOBS)}
        self._found: dict[int, Ours] = {}

    @cached_property
    def scorer(self) -> ZooScorer:
        """What scores recipes."""
        return ZooScorer(
            list(self._models.values()), self._tasks, self._tasks_path, "exact_match", self._items
        )

    def ours(self, seed: int) -> Ours:
        """Run `evomerge search`, once a seed."""
        if seed not in self._found:
            self._found[seed] = self._search(seed)
        return self._found[seed]

    def compare_items(self) -> dict[str, Any]:
        """Compare item evaluations over seeds."""
        rows = [self._item_row(seed) for seed in self._options.seeds]
        full = self._options.evaluations * self.scorer.items("search")
        report: dict[str, Any] = {"seeds": rows, "full": full}
        for kind in ("items", "items_with_baselines"):
            # a search that never got there took more than any number
            middle = median(float("inf") if row[kind] is None else row[kind] for row in rows)
            report[f"median_{kind}"] = None if middle == float("inf") else middle
            print(_told(f"items ({kind})", middle / full, SHARE_OF_ITEMS, "of the settings'"))
        return report

    def compare_with_peer(self) -> dict[str, Any]:
        """Compare wall times with mergekit-evolve itself."""
        ours = self.ours(self._options.seeds[0])
        steps, seconds, evaluations = self._evolve()
        print(f"peer: {evaluations} evaluations in {seconds:.0f} s", flush=True)
        theirs = self._holdout(incumbents(steps)[-1].recipe)
        winner = self._holdout(ours.winner)
        searching = reached(ours.steps, theirs, self._holdout).seconds
        with_baselines = reached(ours.with_baselines, theirs, self._holdout).seconds
        print(
            f"holdout: peer {theirs:.4f} after {evaluations} evaluations in {seconds:.0f} s, "
            f"ours {winner:.4f}"
        )
        for name, took in (("search", searching), ("with baselines", with_baselines)):
            share = float("inf") if took is None else took / seconds
            print(_told(f"time ({name})", share, SHARE_OF_TIME, "of the peer's"))
        print(f"ends {winner - theirs:+.4f} (aim: {HIGHER:+g})")
        return {
            "peer": {
                "seconds": seconds,
                "evaluations": evaluations,
                "holdout": theirs,
                "path": [
                    (step.seconds, step.items, step.value, self._holdout(step.recipe))
                    for step in incumbents(steps)
                ],
            },
            "ours": {
                "holdout": winner,
                "seconds": ours.seconds,
                "seconds_to_peer": searching,
                "seconds_to_peer_with_baselines": with_baselines,
            },
        }

    def compare_with_tuning(self) -> dict[str, Any]:
        """Fine-tune the best naive merge for as long as our search took."""
        ours = self.ours(self._options.seeds[0])
        torch.set_num_threads(self._options.workers)
        items = [item for job in JOBS for item in zoo.items(job, "test", ITEMS["search"])]
        tuned = fine_tune(self.scorer, ours.naive, items, ours.seconds)
        report = {
            "naive": self._holdout(ours.naive),
            "tuned": asdict(tuned),
            "ours": self._holdout(ours.winner),
        }
        print(
            f"holdout: best naive merge {report['naive']:.4f}, fine-tuned {tuned.holdout:.4f} "
            f"({tuned.seconds:.0f} s at {tuned.rate:g}), ours {report['ours']:.4f}"
        )
        return report

    def _item_row(self, seed: int) -> dict[str, Any]:
        ours = self.ours(seed)
        theirs = with_mergekit_settings(self.scorer, self._space(), self._options.evaluations, seed)
        goal = self._holdout(incumbents(theirs)[-1].recipe)
        row = {
            "seed": seed,
            "settings_holdout": goal,
            "ours_holdout": self._holdout(ours.winner),
            "items": reached(ours.steps, goal, self._holdout).items,
            "items_with_baselines": reached(ours.with_baselines, goal, self._holdout).items,
            "ours_items": ours.steps[-1].items,
        }
        print(json.dumps(row), flush=True)
        return row

    def _search(self, seed: int) -> Ours:
        options = self._options
        search: dict[str, Any] = {
            "sampler": options.sampler,
            "trials": options.trials,
            "seed": seed,
        }
        if options.minutes is not None:
            search["hours"] = options.minutes / 60
        folder = self._folder / f"ours-{seed}"
        campaign = _campaigns.campaign(
            self._models["base"],
            {name: self._models[name] for name in JOBS},
            SPACE,
            [{"task": task, "metric": "exact_match"} for task in self._tasks],
            self._tasks_path,
            self._items,
            search,
            workers=options.workers,
        )
        ran = _campaigns.search(campaign, folder)
        results = folder / "results"
        told = [at for at, _ in ran.told]
        winner, naive = best_of_campaign(results)
        return Ours(
            seed=seed,
            steps=of_campaign(results, [at - ran.searching for at in told], baselines=False),
            with_baselines=of_campaign(results, [at - ran.ready for at in told], baselines=True),
            seconds=told[-1] - ran.ready,
            winner=winner,
            naive=naive,
        )

    def _evolve(self) -> tuple[list[Step], float, int]:
        """Run the peer; return its best candidates, its seconds when ready, and its evaluations."""
        programs = _mergekit_evolve.build_environment(self._options.peer_env)
        exported = export_models(self._folder / "models", ("base", *JOBS))
        _mergekit_evolve.check_agreement(
            programs / "python", exported["base"], self._tasks_path, self._tasks, ITEMS["search"]
        )
        genome = _mergekit_evolve.genome(
            exported["base"],
            [exported[job] for job in JOBS],
            "task_arithmetic",
            dict.fromkeys(self._tasks, "exact_match,none"),
            limit=ITEMS["search"],
            layer_granularity=1,
            filters=("self_attn", "mlp"),
        )
        storage, kept = self._folder / "peer", self._folder / "peer-best"
        kept.mkdir()
        found: list[tuple[float, int, Path]] = []

        def watch(timeline: _mergekit_evolve.Timeline, line: Line) -> bool:
            if line.text.startswith(_mergekit_evolve.NEW_BEST):
                copy = kept / f"{len(found)}.yaml"
                shutil.copy(storage / _mergekit_evolve.BEST, copy)
                found.append(
                    (line.seconds - min(timeline.begun.values()), timeline.evaluations, copy)
                )
            late = line.seconds > 60 * self._options.peer_minutes
            return late and bool(found)

        timeline = _mergekit_evolve.evolve(
            programs,
            genome,
            self._tasks_path,
            storage,
            workers=self._options.workers,
            evaluations=self._options.peer_evaluations,
            watch=watch,
        )
        items = self.scorer.items("search")
        by_folder = {str(exported[name]): self._models[name] for name in exported}
        steps = []
        for number, (seconds, evaluations, path) in enumerate(found):
            made = recipe.load(path).renamed(lambda name: by_folder.get(name, name))
            # each is better than those before: that it says, and the order is all that counts
            steps.append(Step(evaluations * items, seconds, float(number), made))
        last = max(ends[-1][0] for ends in timeline.ended.values())
        return steps, last - min(timeline.begun.values()), timeline.evaluations

    def _holdout(self, made: Recipe) -> float:
        return self.scorer.score(made, "holdout")

    def _space(self) -> Space:
        experts = {name: self._models[name] for name in JOBS}
        family = Family(self._models["base"], experts, LAYERS, "float32")
        return Space.build(SpaceSettings.model_validate(SPACE), family, METHODS)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the comparisons asked for, and write what they found as JSON."""
    options = _options(arguments)
    torch.set_num_threads(1)
    report: dict[str, Any] = {"sampler": options.sampler, "items": ITEMS, "load": os.getloadavg()}
    with tempfile.TemporaryDirectory(prefix="quality-") as folder:
        bench = Bench(Path(folder), options)
        parts = {
            "peer": bench.compare_with_peer,
            "items": bench.compare_items,
            "tuning": bench.compare_with_tuning,
        }
        for name, compare in parts.items():
            if name not in options.skip:
                report[name] = compare()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _told(what: str, share: float, aim: float, of: str) -> str:
    reached_it = "never" if share == float("inf") else f"1/{1 / share:.1f} {of}"
    return f"{what} to the same holdout score: {reached_it} (aim: 1/{1 / aim:.0f})"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sampler", default="gradient")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--trials", type=int, default=60, help="of our search")
    parser.add_argument("--minutes", type=float, help="of our search, whichever comes first")
    parser.add_argument(
        "--evaluations", type=int, default=200, help="with mergekit-evolve's settings"
    )
    parser.add_argument("--peer-evaluations", type=int, default=180)
    parser.add_argument(
        "--peer-minutes",
        type=float,
        default=60.0,
        help="then it stops, but not before a generation",
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--skip", nargs="+", default=[], choices=["peer", "items", "tuning"])
    parser.add_argument("--peer-env", type=Path, default=_mergekit_evolve.CACHE)
    parser.add_argument("--out", type=Path, default=Path("results/speed/time_to_quality.json"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    end_on_sigterm()
    main()
