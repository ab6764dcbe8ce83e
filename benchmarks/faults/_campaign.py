"""A small campaign on the zoo, run by `evomerge`'s own commands in child processes that may be killed."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TEXT = """\
name: faults
models:
  base: zoo:base
  experts: [zoo:facts, zoo:translation]
  dtype: float32
space:
  method: task_arithmetic
  layers: 2
  parameters:
    weight: {{low: 0.0, high: 1.2}}
objectives:
  - {{task: zoo_facts, metric: gold_loglikelihood, report: gold_loglikelihood}}
  - {{task: zoo_translation, metric: gold_loglikelihood, report: gold_loglikelihood}}
tasks_path: {root}/benchmarks/tasks
items: {{search: 4, select: 4, holdout: 8}}
search: {{sampler: {sampler}, trials: {trials}, finalists: 2, seed: 1}}
workers: {{count: {workers}}}
out: {out}
"""

Point = tuple[int, str, tuple[tuple[str, float], ...], tuple[float, ...] | None]


def preload() -> None:
    """Import in this process whatever a campaign needs, so that forked children need not."""
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    import torch

    import evomerge.cli
    import evomerge.run
    import evomerge.workers.evaluator  # noqa: F401

    torch.set_num_threads(1)


def write(
    folder: Path, *, sampler: str, trials: int, workers: int, out: Path | None = None
) -> Path:
    """Write a campaign file; its results folder is `folder/out` unless named."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "campaign.yaml"
    out = out or folder / "out"
    file.write_text(
        TEXT.format(root=ROOT, sampler=sampler, trials=trials, workers=workers, out=out)
    )
    return file


def start(arguments: list[str], log: Path, die_at: int | None = None) -> int:
    """Run a command in a forked child; return its process.

    Args:
        arguments: Of `evomerge`.
        log: Gets a line for each evaluation that begins: a JSON list of name and split.
        die_at: Before this durable step, from 0, the child kills itself; None: it does not.
    """
    child = os.fork()
    if child:
        return child
    status = 99
    try:
        with log.with_suffix(".output").open("a") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            _log_evaluations(log)
            if die_at is not None:
                _die_at(die_at)
            from evomerge.cli import run_command

            status = run_command([*arguments, "--display", "none"])
            sys.stdout.flush()
            sys.stderr.flush()
    finally:
        os._exit(status)


def wait(child: int) -> int:
    """Wait for a child's end; return its exit status, minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def points(out: Path) -> list[Point]:
    """Return number, state, parameters and values of every trial of a results folder."""
    from evomerge.store import Store

    with Store.open(out, write=False) as store:
        return [
            (t.number, t.state, tuple(sorted(t.params.items())), t.values) for t in store.trials()
        ]


def told(out: Path) -> set[str]:
    """Return the names of the trials that have an outcome."""
    if not (out / "study.db").exists():
        return set()
    return {f"trial {number}" for number, state, *_ in points(out) if state != "asked"}


def written(out: Path) -> int:
    """Return how many durable steps have left their mark: rows of the database, and files."""
    files = ("study.db", "leaderboard.json", "leaderboard.md", "best")
    count = sum((out / name).exists() for name in files)
    if not (out / "study.db").exists():
        return count
    with closing(sqlite3.connect(f"{(out / 'study.db').as_uri()}?mode=ro", uri=True)) as connection:
        count += connection.execute("SELECT count(*) FROM evomerge_events").fetchone()[0]
    return count


def winner(out: Path) -> Any:
    """Return the winner's row of the leaderboard: trial and scores."""
    rows = json.loads((out / "leaderboard.json").read_text())["rows"]
    (row,) = [row for row in rows if row["kind"] == "winner"]
    return row["trial"], row["splits"]


def evaluated(log: Path) -> list[tuple[str, str]]:
    """Return names and splits of the evaluations that began, in their order."""
    if not log.exists():
        return []
    return [tuple(json.loads(line)) for line in log.read_text().splitlines()]


def _log_evaluations(log: Path) -> None:
    from evomerge.workers.evaluator import Evaluator

    evaluate = Evaluator.evaluate

    def logged(self: Any, job: Any) -> Any:
        with log.open("a") as file:
            file.write(json.dumps([job.entry.name, job.split]) + "\n")
        return evaluate(self, job)

    Evaluator.evaluate = logged  # type: ignore[method-assign]


def _die_at(step: int) -> None:
    """Kill this process before its nth durable step: a commit of the database, or an fsync."""
    done = 0

    def count(*_: object) -> None:
        nonlocal done
        if done == step:
            os.kill(os.getpid(), signal.SIGKILL)
        done += 1

    sync: Callable[[int], None] = os.fsync

    def counted(descriptor: int) -> None:
        count()
        sync(descriptor)

    connect = sqlite3.connect

    def watched(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.set_trace_callback(lambda sql: count() if sql == "COMMIT" else None)
        return connection

    sqlite3.connect = watched
    os.fsync = counted
