"""One gradient step against a forward pass of its items, on the zoo's five specialists.

    python -m benchmarks.speed.gradient [--methods task_arithmetic ties] [--items 8 64] [--rounds 15]

A step is all that a worker does for one: write the merge into the live model, read the items with a graph,
differentiate, and reduce every tensor's gradient to those by all group weights (layer × component) and by
each row. A forward pass computes the same loss on the same items without a graph, on weights that stand
there already. Both take one thread and turns, in seconds of processor time; ratios are of medians. The merge
has coefficients at every scale, and weights change from step to step as they do along a path.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

from evomerge import zoo
from evomerge.candidate import Coefficients, Merge
from evomerge.candidate.merge import tuples
from evomerge.candidate.trial import Targets
from evomerge.merge.live import LiveModel
from evomerge.merge.methods import METHODS
from evomerge.scoring import Scorer
from evomerge.tasks import SplitPlan, TaskRequest, load_items

JOBS = ("extraction", "dialogue", "tools", "translation", "facts")
TASKS_PATH = Path(__file__).parents[1] / "tasks"
AIM = 3.2
DENSITY = 0.5
"""Of methods that have one."""


@dataclass(frozen=True)
class Row:
    """One line of the table; seconds of processor time.

    Attributes:
        method: Of the merge.
        loss: `gold` or `expert`.
        items: Of each task.
        forward: Of a forward pass.
        step: Of a step.
        ratio: step / forward.
    """

    method: str
    loss: str
    items: int
    forward: float
    step: float
    ratio: float


class Bench:
    """The zoo's live model, and its items with what each job's expert says of them."""

    def __init__(self, items: int) -> None:
        self._models = tuple(str(zoo.resolve(f"zoo:{name}")) for name in ("base", *JOBS))
        self._tasks = [f"zoo_{job}" for job in JOBS]
        self._live = LiveModel(self._models, dtype="float32")
        self._scorer = Scorer(
            load_items(
                list(map(TaskRequest, self._tasks)),
                tokenizer=self._live.tokenizer,
                tasks_path=str(TASKS_PATH),
                plan=SplitPlan({"search": items}),
            )
        )
        self._targets = dict(self._told())

    def rows(
        self, method: str, counts: Sequence[int], losses: Sequence[str], rounds: int
    ) -> list[Row]:
        """Time a method's steps and forward passes."""
        merge = self._merge(method)
        return [self._row(merge, loss, count, rounds) for loss in losses for count in counts]

    def _row(self, merge: Merge, loss: str, count: int, rounds: int) -> Row:
        chosen = dict.fromkeys(self._tasks, tuple(range(count)))
        targets = {task: said[:count] for task, said in self._targets.items() if loss == "expert"}
        times: list[tuple[float, float]] = []
        for turn in range(rounds + 1):  # the first one warms up
            step = _timed(partial(self._step, _moved(merge, 0.003 * turn), chosen, targets))
            times.append((_timed(partial(self._forward, chosen, targets)), step))
        forward, step = (median(each) for each in zip(*times[1:], strict=True))
        return Row(merge.method, loss, count, forward, step, step / forward)

    def _forward(
        self, chosen: Mapping[str, tuple[int, ...]], targets: Mapping[str, Targets]
    ) -> None:
        shares = dict.fromkeys(chosen, 1 / len(chosen))
        with torch.inference_mode():
            self._scorer.loss.run(
                self._live.module, chosen, shares, lambda _: None, targets=targets
            )

    def _step(
        self, merge: Merge, chosen: Mapping[str, tuple[int, ...]], targets: Mapping[str, Targets]
    ) -> None:
        loss = self._scorer.loss
        shares = dict.fromkeys(chosen, 1 / len(chosen))
        recompute = loss.recompute(self._live.module)
        with self._live.gradients(merge, recompute=recompute, rows=True) as tape:
            loss.run(self._live.module, chosen, shares, targets=targets)
            tape.by_number(merge)
            tape.by_row(merge)

    def _told(self) -> Iterator[tuple[str, Targets]]:
        for task, expert in zip(self._tasks, self._models[1:], strict=True):
            self._live.write(Merge("passthrough", (expert,), dtype="float32"))
            yield task, self._scorer.loss.targets(self._live.module, task)

    def _merge(self, method: str) -> Merge:
        """A merge of 60 weights, with coefficients by tensor and row."""
        base, *experts = self._models
        random = np.random.default_rng(0)
        shapes = {
            name: header.shape for name, header in self._live.checkpoints[base].tensors.items()
        }
        tables = {
            name: random.normal(0, 0.02, (len(experts), shape[0])).astype(np.float32)
            for name, shape in shapes.items()
        }
        weights = random.uniform(0.2, 0.6, (4, 3, len(experts)))
        own = {"weight": weights}
        if "density" in METHODS[method].parameters:
            own["density"] = np.full((1, 1, len(experts)), DENSITY)
        return Merge(
            method,
            tuple(experts),
            base,
            groups=((0, 1), (1, 2), (2, 3), (3, 4)),
            components=("self_attn", "mlp"),
            own={name: tuples(table.tolist()) for name, table in own.items()},
            dtype="float32",
            coefficients=Coefficients(tables),
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table of medians and ratios, and write it as JSON."""
    options = _options(arguments)
    torch.set_num_threads(1)
    bench = Bench(max(options.items))
    print(f"{'method':18}{'loss':8}{'items':>6}{'forward':>11}{'step':>11}{'ratio':>8}")
    rows: list[Row] = []
    for method in options.methods:
        for row in bench.rows(method, options.items, options.losses, options.rounds):
            times = f"{row.forward * 1e3:8.1f} ms{row.step * 1e3:8.1f} ms"
            print(f"{method:18}{row.loss:8}{row.items:6d}{times}{row.ratio:8.2f}", flush=True)
            rows.append(row)
    report = {"aim": AIM, "rows": [asdict(row) for row in rows]}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _moved(merge: Merge, by: float) -> Merge:
    weights = np.array(merge.own["weight"]) + by
    return replace(merge, own={**merge.own, "weight": tuples(weights.tolist())})


def _timed(work: Callable[[], None]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--methods", nargs="+", default=["task_arithmetic", "ties"])
    parser.add_argument("--losses", nargs="+", default=["gold", "expert"])
    parser.add_argument("--items", type=int, nargs="+", default=[8, 64], help="of each task")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("results/speed/gradient.json"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
