"""Scoring a candidate: lm-eval's own HFLM against the resident scorer, on the same module and items.

    python -m benchmarks.speed.score [--base FOLDER --experts FOLDER ...] [--items 200] [--rounds 3]

The module is a merge of the zoo's specialists; a relative of it (other weights) writes the drafts. Both
sides use one thread and are timed in turn, in seconds of processor time, so that a busy machine does not
tell; ratios are of medians. Stock is `lm_eval.simple_evaluate` with that very module in HFLM, at the
fastest of the batch sizes that `--batch-sizes` names, without loading tasks (shown apart), bootstrap or
sample logs. Ours is a trial after the worker's first: nothing is tokenised or built again; what that
first trial takes longer is shown apart. Neither side's time holds the loading of models.

`bound` is the arithmetic: stock's multiply-adds in linear layers over ours, what the ratio would be if both
ran at the machine's peak and did nothing else. `again` counts what the later trials tokenised or built.

The 5-shot tasks show the same five examples to every item, as MMLU, BBH and GSM8K do; `drawn` draws them
again for each item, lm-eval's default. The items are the zoo's, for other models too, unless `--rows` names
a folder. With the models and items that benchmarks/smollm2 builds:

    M=results/smollm2_models; python -m benchmarks.speed.score --base $M/base --experts $M/extraction \
        $M/dialogue $M/tools $M/formats --rows $M/tasks --end '<|im_end|>' --items 8 --rounds 1 \
        --batch-sizes 8 16 --trials 0 --out results/speed/score_smollm2.json
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import datasets
import torch
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tqdm import tqdm

from benchmarks.speed._counting import multiply_adds_of, passes_of, prepared, timed
from benchmarks.speed._score_tasks import write_tasks
from evomerge import zoo
from evomerge.candidate import Recipe, Source
from evomerge.merge.live import LiveModel
from evomerge.scoring import Scorer
from evomerge.tasks import SplitPlan, TaskRequest, load_items

SPECIALISTS = ("extraction", "dialogue", "tools", "translation", "facts")


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
    """One line of the table; seconds of processor time.

    Attributes:
        title: The case.
        stock: lm-eval's seconds, at `batch_size`.
        batch_size: The fastest that was tried.
        loading: What stock takes besides, to load the tasks.
        first: Our first trial's seconds.
        ours: A later trial's seconds.
        forward: Which part of them is spent in forward passes.
        prepared_first: Tokeniser calls and requests built in the first trial.
        prepared_later: In all later trials together.
        bound: Stock's multiply-adds over ours.
        ratio: stock / ours.
        target: What the ratio should be.
    """

    title: str
    stock: float
    batch_size: int
    loading: float
    first: float
    ours: float
    forward: float
    prepared_first: int
    prepared_later: int
    bound: float
    ratio: float
    target: float | None


@dataclass(frozen=True)
class _Stock:
    seconds: float
    batch_size: int
    loading: float
    multiply_adds: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table of medians and ratios, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="zoo:base")
    parser.add_argument("--experts", nargs="+", default=[f"zoo:{name}" for name in SPECIALISTS])
    parser.add_argument("--jobs", nargs="+", default=["extraction", "tools"])
    parser.add_argument(
        "--rows", type=Path, help="JOB_validation.jsonl and JOB_test.jsonl, for zoo"
    )
    parser.add_argument("--end", default="<|end|>", help="what ends an answer")
    parser.add_argument("--cases", nargs="+", help="only those whose titles begin like this")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--items", type=int, default=200, help="of each task")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[16, 64, 200])
    parser.add_argument("--trials", type=int, default=300, help="for memory; 0: not measured")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--out", type=Path, default=Path("results/speed/score.json"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    _quiet()
    base = _folder(options.base)
    models = (base, *(_expert(base, name) for name in options.experts))
    live = LiveModel(models, dtype=options.dtype)
    with tempfile.TemporaryDirectory() as folder:
        write_tasks(Path(folder), options.jobs, options.rows, options.end)
        bench = _Bench(live, models, Path(folder), options)
        chosen = tuple(options.cases or [""])
        cases = [case for case in _cases(options.jobs) if case.title.startswith(chosen)]
        rows = [bench.row(case) for case in cases]
        memory = bench.memory(options.trials) if options.trials else []
    _show(rows, memory)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    report = {
        "base": options.base,
        "items": options.items,
        "dtype": options.dtype,
        "threads": options.threads,
        "rows": [asdict(row) for row in rows],
        "rss_mib": memory,
    }
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _cases(jobs: Sequence[str]) -> list[Case]:
    def named(kind: str) -> tuple[str, ...]:
        return tuple(f"bench_{job}_{kind}" for job in jobs)

    golds, both = "gold_loglikelihood", ("exact_match", "exact_match")
    return [
        Case("multiple choice, 0-shot", named("mc0"), "acc", "acc", 3),
        Case("multiple choice, 5-shot", named("mc5"), "acc", "acc", 10),
        Case("multiple choice, 5-shot, drawn", named("mc5_drawn"), "acc", "acc"),
        Case("gold likelihood for generation", named("gen0"), "exact_match", golds, 20),
        Case("gold likelihood, 5-shot", named("gen5"), "exact_match", golds),
        Case("generation, cold", named("gen0"), *both, 2),
        Case("generation, drafts", named("gen0"), *both, 5, "relative"),
        Case("generation, 5-shot, cold", named("gen5"), *both, 2),
        Case("generation, 5-shot, drafts", named("gen5"), *both, 5, "relative"),
    ]


class _Bench:
    def __init__(
        self, live: LiveModel, models: tuple[str, ...], tasks: Path, options: argparse.Namespace
    ) -> None:
        self._live, self._models, self._tasks, self._options = live, models, tasks, options
        self._stock: dict[tuple[str, ...], _Stock] = {}

    def row(self, case: Case) -> Row:
        """Time one case."""
        self._live.write(self._recipe(0.4))
        if case.tasks not in self._stock:
            self._stock[case.tasks] = self._time_stock(case.tasks)
        row = self._time_ours(case, self._stock[case.tasks])
        print(_line(row), flush=True)
        return row

    def memory(self, trials: int) -> list[tuple[int, float]]:
        """Resident memory, in MiB, while the same worker scores one candidate after the other."""
        job = self._options.jobs[0]
        tasks = (f"bench_{job}_mc0", f"bench_{job}_gen0")
        scorer = self._scorer(tasks, 32)
        metrics = {tasks[0]: ("acc",), tasks[1]: ("exact_match", "gold_loglikelihood")}
        seen = []
        for trial in range(1, trials + 1):
            self._live.write(self._recipe(0.2 + 0.4 * (trial % 37) / 37))
            scorer.score(self._live.module, "search", metrics)
            if trial in (1, 10, 50) or trial % 100 == 0:
                seen.append((trial, _resident_mib()))
        return seen

    def _time_stock(self, tasks: Sequence[str]) -> _Stock:
        """Medians at the best batch size."""
        trials = {size: self._stock_once(tasks, size) for size in self._options.batch_sizes}
        best = min(trials, key=lambda size: trials[size].seconds)
        rounds = [trials[best]]
        rounds += [self._stock_once(tasks, best) for _ in range(self._options.rounds - 1)]
        return _Stock(
            statistics.median(each.seconds for each in rounds),
            best,
            statistics.median(each.loading for each in rounds),
            rounds[0].multiply_adds,
        )

    def _stock_once(self, tasks: Sequence[str], batch_size: int) -> _Stock:
        model = HFLM(
            pretrained=self._live.module, tokenizer=self._live.tokenizer, batch_size=batch_size
        )
        manager = TaskManager(include_path=str(self._tasks), include_defaults=False)
        loading = [0.0]
        manager.load = timed(manager.load, loading)  # type: ignore[method-assign]
        with multiply_adds_of(self._live.module) as arithmetic:
            start = time.process_time()
            simple_evaluate(
                model=model,
                tasks=list(tasks),
                task_manager=manager,
                limit=self._options.items,
                bootstrap_iters=0,
                log_samples=False,
            )
            seconds = time.process_time() - start - loading[0]
        return _Stock(seconds, batch_size, loading[0], arithmetic[0])

    def _time_ours(self, case: Case, stock: _Stock) -> Row:
        """Time a worker's first trial and later ones."""
        scorer = self._scorer(case.tasks, self._options.items)
        metrics = dict.fromkeys(case.tasks, (case.ours,))
        with prepared(self._live.tokenizer) as prepared_first:
            start = time.process_time()
            scorer.score(self._live.module, "search", metrics)
            first = time.process_time() - start
        rounds = []
        with prepared(self._live.tokenizer) as prepared_later:
            for _ in range(self._options.rounds):
                self._set_drafts(scorer, case)
                with passes_of(self._live.module) as passes:
                    start = time.process_time()
                    scorer.score(self._live.module, "search", metrics)
                    seconds = time.process_time() - start
                rounds.append((seconds, passes.seconds / seconds))
            self._set_drafts(scorer, case)
            with multiply_adds_of(self._live.module) as arithmetic:
                scorer.score(self._live.module, "search", metrics)
        all_seconds, shares = zip(*rounds, strict=True)
        ours = statistics.median(all_seconds)
        return Row(
            title=case.title,
            stock=stock.seconds,
            batch_size=stock.batch_size,
            loading=stock.loading,
            first=first,
            ours=ours,
            forward=statistics.median(shares),
            prepared_first=prepared_first[0],
            prepared_later=prepared_later[0],
            bound=stock.multiply_adds / arithmetic[0],
            ratio=stock.seconds / ours,
            target=case.target,
        )

    def _set_drafts(self, scorer: Scorer, case: Case) -> None:
        scorer.forget_drafts()
        if case.drafts == "relative":
            self._live.write(self._recipe(0.36))
            scorer.score(self._live.module, "search", dict.fromkeys(case.tasks, (case.ours,)))
            self._live.write(self._recipe(0.4))

    def _scorer(self, tasks: Sequence[str], items: int) -> Scorer:
        chosen = load_items(
            [TaskRequest(task) for task in tasks],
            tokenizer=self._live.tokenizer,
            tasks_path=str(self._tasks),
            plan=SplitPlan(counts={"search": items}, first=True),
        )
        return Scorer(chosen)

    def _recipe(self, weight: float) -> Recipe:
        base, *experts = self._models
        sources = (Source(base), *(Source(name, parameters={"weight": weight}) for name in experts))
        return Recipe(
            method="task_arithmetic",
            models=sources,
            base_model=base,
            dtype=self._options.dtype,
        )


def _resident_mib() -> float:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:  # no such file here: the largest ever, then
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return pages * resource.getpagesize() / 2**20


def _folder(name: str) -> str:
    return str(zoo.resolve(name)) if name.startswith("zoo:") else name


def _expert(base: str, name: str) -> str:
    folder = _folder(name)
    return f"{base}+{folder}" if (Path(folder) / "adapter_config.json").exists() else folder


def _quiet() -> None:
    logging.getLogger("lm_eval").setLevel("ERROR")
    datasets.disable_progress_bars()
    original = tqdm.__init__
    tqdm.__init__ = lambda self, *a, **k: original(self, *a, **{**k, "disable": True})  # type: ignore[method-assign]


def _line(row: Row) -> str:
    target = "" if row.target is None else f"   (aim: {row.target:g})"
    return (
        f"{row.title:32} {row.stock:8.2f} ({row.batch_size:3d}) {row.loading:8.2f} {row.first:8.2f} "
        f"{row.ours:8.3f} {row.forward:8.0%} {row.prepared_later:6d} {row.bound:7.1f} "
        f"{row.ratio:7.1f} ×{target}"
    )


def _show(rows: Sequence[Row], memory: Sequence[tuple[int, float]]) -> None:
    head = ("", "stock (batch)", "+loading", "first", "ours", "forward", "again", "bound", "ratio")
    print("\n{:32} {:>14} {:>8} {:>8} {:>8} {:>8} {:>6} {:>7} {:>9}".format(*head))
    for row in rows:
        print(_line(row))
    for trial, resident in memory:
        print(f"resident memory after {trial:4d} trials: {resident:7.0f} MiB")


if __name__ == "__main__":
    main()
