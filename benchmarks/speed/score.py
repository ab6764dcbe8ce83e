"""Scoring a candidate: lm-eval's own HFLM against the resident scorer, on the same module and items.

    python -m benchmarks.speed.score [--base FOLDER --experts FOLDER ...] [--items 200] [--rounds 3]

The module is a merge of the zoo's specialists; a relative of it (other weights) writes the drafts. Both
sides use one thread and are timed in turn, in seconds of processor time, so that a busy machine does not
tell; ratios are of medians. Stock is `lm_eval.simple_evaluate` with that very module in HFLM, at the
fastest of the batch sizes that `--batch-sizes` names, without loading tasks (shown apart), bootstrap or
sample logs. Ours is a trial after the worker's first: nothing is tokenised or built again; what that
first trial takes longer is shown apart. Neither side's time holds the loading of models.

The 5-shot tasks show the same five examples to every item, as MMLU, BBH and GSM8K do; `drawn` draws them
anew for each item, lm-eval's default. The items are the zoo's, for other models too (answers are then
noise; the passes are the same).
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tqdm import tqdm

from evomerge import zoo
from evomerge.merge import LiveModel
from evomerge.recipe import Recipe, Source
from evomerge.score import Scorer, SplitPlan, TaskRequest, load_items

ZOO_TASKS = Path(__file__).parents[1] / "tasks" / "zoo"
SPECIALISTS = ("extraction", "dialogue", "tools", "translation", "facts")
SHOTS = """
task: {name}
include: {include}
dataset_kwargs: {{job: {job}}}
num_fewshot: {shots}
"""
FIXED = "fewshot_config: {sampler: first_n}\n"


@dataclass(frozen=True)
class Case:
    """What is compared: a stock metric of some tasks, and ours in its place."""

    title: str
    tasks: tuple[str, ...]
    stock: str
    ours: str
    target: float | None = None
    drafts: str = "none"  # none: forgotten before each trial; relative: a relative's


@dataclass(frozen=True)
class Row:
    """One line of the table; seconds of processor time."""

    title: str
    stock: float
    batch_size: int
    loading: float
    first: float
    ours: float
    forward: float
    ratio: float
    target: float | None


def main() -> None:
    """Print a table of medians and ratios, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="zoo:base")
    parser.add_argument("--experts", nargs="+", default=[f"zoo:{name}" for name in SPECIALISTS])
    parser.add_argument("--jobs", nargs="+", default=["extraction", "tools"])
    parser.add_argument("--items", type=int, default=200, help="of each task")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[16, 64, 200])
    parser.add_argument("--trials", type=int, default=300, help="for memory; 0: not measured")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--out", type=Path, default=Path("results/speed/score.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    _quiet()
    models = tuple(_folder(name) for name in (options.base, *options.experts))
    live = LiveModel(models, dtype=options.dtype)
    with tempfile.TemporaryDirectory() as folder:
        bench = _Bench(live, models, _write_tasks(Path(folder), options.jobs), options)
        rows = [bench.row(case) for case in _cases(options.jobs)]
        memory = bench.memory(options.trials) if options.trials else []
    _show(rows, memory)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    report = {
        "base": options.base,
        "items": options.items,
        "dtype": options.dtype,
        "rows": [asdict(row) for row in rows],
        "rss_mib": memory,
    }
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _cases(jobs: Sequence[str]) -> list[Case]:
    def named(kind: str) -> tuple[str, ...]:
        return tuple(f"bench_{job}_{kind}" for job in jobs)

    golds = "gold_loglikelihood"
    return [
        Case("multiple choice, 0-shot", named("mc0"), "acc", "acc", 3),
        Case("multiple choice, 5-shot", named("mc5"), "acc", "acc", 10),
        Case("multiple choice, 5-shot, drawn", named("mc5_drawn"), "acc", "acc"),
        Case("gold likelihood for generation", named("gen0"), "exact_match", golds, 20),
        Case("the same, 5-shot", named("gen5"), "exact_match", golds),
        Case("generation, cold", named("gen0"), "exact_match", "exact_match", 2),
        Case(
            "the same, a relative's drafts",
            named("gen0"),
            "exact_match",
            "exact_match",
            5,
            "relative",
        ),
        Case("generation, 5-shot, cold", named("gen5"), "exact_match", "exact_match", 2),
        Case(
            "the same, a relative's drafts",
            named("gen5"),
            "exact_match",
            "exact_match",
            5,
            "relative",
        ),
    ]


class _Bench:
    def __init__(
        self, live: LiveModel, models: tuple[str, ...], tasks: Path, options: argparse.Namespace
    ) -> None:
        self._live, self._models, self._tasks, self._options = live, models, tasks, options
        self._stock: dict[tuple[str, ...], tuple[float, int, float]] = {}

    def row(self, case: Case) -> Row:
        """Time one case."""
        self._live.write(self._recipe(0.4))
        if case.tasks not in self._stock:
            self._stock[case.tasks] = self._time_stock(case.tasks)
        stock, batch_size, loading = self._stock[case.tasks]
        first, ours, forward = self._time_ours(case)
        row = Row(
            case.title, stock, batch_size, loading, first, ours, forward, stock / ours, case.target
        )
        print(_line(row), flush=True)
        return row

    def memory(self, trials: int) -> list[tuple[int, float]]:
        """Resident memory, in MiB, while the same worker scores one candidate after the other."""
        tasks = ("bench_extraction_mc0", "bench_extraction_gen0")
        scorer = self._scorer(tasks, 32)
        metrics = {tasks[0]: ("acc",), tasks[1]: ("exact_match", "gold_loglikelihood")}
        seen = []
        for trial in range(1, trials + 1):
            self._live.write(self._recipe(0.2 + 0.4 * (trial % 37) / 37))
            scorer.score("search", metrics)
            if trial in (1, 10, 50) or trial % 100 == 0:
                seen.append((trial, _resident_mib()))
        return seen

    def _time_stock(self, tasks: Sequence[str]) -> tuple[float, int, float]:
        """Median seconds at the best batch size, that size, and seconds for loading the tasks."""
        trials = {size: self._stock_once(tasks, size) for size in self._options.batch_sizes}
        best = min(trials, key=lambda size: trials[size][0])
        rounds = [trials[best]]
        rounds += [self._stock_once(tasks, best) for _ in range(self._options.rounds - 1)]
        seconds, loading = zip(*rounds, strict=True)
        return statistics.median(seconds), best, statistics.median(loading)

    def _stock_once(self, tasks: Sequence[str], batch_size: int) -> tuple[float, float]:
        model = HFLM(
            pretrained=self._live.module, tokenizer=self._live.tokenizer, batch_size=batch_size
        )
        manager = TaskManager(include_path=str(self._tasks), include_defaults=False)
        loading = [0.0]
        manager.load = _timed(manager.load, loading)  # type: ignore[method-assign]
        start = time.process_time()
        simple_evaluate(
            model=model,
            tasks=list(tasks),
            task_manager=manager,
            limit=self._options.items,
            bootstrap_iters=0,
            log_samples=False,
        )
        return time.process_time() - start - loading[0], loading[0]

    def _time_ours(self, case: Case) -> tuple[float, float, float]:
        """Seconds of the first trial, median seconds of later ones, and their share in forward passes."""
        scorer = self._scorer(case.tasks, self._options.items)
        metrics = dict.fromkeys(case.tasks, (case.ours,))
        start = time.process_time()
        scorer.score("search", metrics)
        first = time.process_time() - start
        rounds = []
        for _ in range(self._options.rounds):
            scorer.forget_drafts()
            if case.drafts == "relative":
                self._live.write(self._recipe(0.36))
                scorer.score("search", metrics)
                self._live.write(self._recipe(0.4))
            with _forward_seconds(self._live.module) as forward:
                start = time.process_time()
                scorer.score("search", metrics)
                seconds = time.process_time() - start
            rounds.append((seconds, forward[0] / seconds))
        seconds, shares = zip(*rounds, strict=True)
        return first, statistics.median(seconds), statistics.median(shares)

    def _scorer(self, tasks: Sequence[str], items: int) -> Scorer:
        chosen = load_items(
            [TaskRequest(task) for task in tasks],
            tokenizer=self._live.tokenizer,
            tasks_path=str(self._tasks),
            plan=SplitPlan(counts={"search": items}, first=True),
        )
        return Scorer(self._live.module, self._live.tokenizer, chosen)

    def _recipe(self, weight: float) -> Recipe:
        base, *experts = self._models
        sources = (Source(base), *(Source(name, parameters={"weight": weight}) for name in experts))
        return Recipe(
            method="task_arithmetic",
            models=sources,
            base_model=base,
            dtype=self._options.dtype,
        )


def _write_tasks(folder: Path, jobs: Sequence[str]) -> Path:
    shutil.copy(ZOO_TASKS / "docs.py", folder)
    for name in ("_choose_yaml", "_generate_yaml"):
        shutil.copy(ZOO_TASKS / name, folder)
    for job in jobs:
        for kind, include in (("mc", "_choose_yaml"), ("gen", "_generate_yaml")):
            for suffix, shots, more in (("0", 0, ""), ("5", 5, FIXED), ("5_drawn", 5, "")):
                name = f"bench_{job}_{kind}{suffix}"
                text = SHOTS.format(name=name, include=include, job=job, shots=shots) + more
                (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


@contextmanager
def _forward_seconds(module: torch.nn.Module) -> Iterator[list[float]]:
    """Count the processor seconds spent inside a module's forward passes."""
    spent, started = [0.0], [0.0]

    def before(*_: Any) -> None:
        started[0] = time.process_time()

    def after(*_: Any) -> None:
        spent[0] += time.process_time() - started[0]

    handles = [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    try:
        yield spent
    finally:
        for handle in handles:
            handle.remove()


def _timed(function: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    def timed(*arguments: Any, **named: Any) -> Any:
        start = time.process_time()
        try:
            return function(*arguments, **named)
        finally:
            spent[0] += time.process_time() - start

    return timed


def _resident_mib() -> float:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:  # no such file here: the largest ever, then
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return pages * resource.getpagesize() / 2**20


def _folder(name: str) -> str:
    return str(zoo.resolve(name)) if name.startswith("zoo:") else name


def _quiet() -> None:
    logging.getLogger("lm_eval").setLevel("ERROR")
    datasets.disable_progress_bars()
    original = tqdm.__init__
    tqdm.__init__ = lambda self, *a, **k: original(self, *a, **{**k, "disable": True})  # type: ignore[method-assign]


def _line(row: Row) -> str:
    target = "" if row.target is None else f"   (aim: {row.target:g})"
    return (
        f"{row.title:32} {row.stock:8.2f} ({row.batch_size:3d}) {row.loading:8.2f} {row.first:8.2f} "
        f"{row.ours:8.3f} {row.forward:8.0%} {row.ratio:7.1f} ×{target}"
    )


def _show(rows: Sequence[Row], memory: Sequence[tuple[int, float]]) -> None:
    head = ("", "stock (batch)", "+loading", "first", "ours", "forward", "ratio")
    print("\n{:32} {:>14} {:>8} {:>8} {:>8} {:>8} {:>9}".format(*head))
    for row in rows:
        print(_line(row))
    for trial, resident in memory:
        print(f"resident memory after {trial:4d} trials: {resident:7.0f} MiB")


if __name__ == "__main__":
    main()
