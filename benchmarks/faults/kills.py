"""kill -9 of the driver, at random moments and at every durable step; kill -9 of workers.

    python -m benchmarks.faults.kills [--random 50] [--steps all|N] [--workers 50] [--sampler cmaes]

A campaign of 60 trials on the zoo, one worker, is run once without interruption. Then it is run again and
killed: at random moments; and before every durable step (a commit, an fsync) in turn. After each kill it is
resumed. In the end no finished trial is lost, none was evaluated again, the count is exact, and all trials,
the winner and its scores are those of the uninterrupted run. Exit status 1 if any of it fails.

`--workers N`: a campaign with two Ray workers, of which N are killed; it completes, every trial accounted
for.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.faults import _campaign

TRIALS = 60
TRIALS_WITH_WORKERS = 5000
SECONDS_OF_WORK = (1.0, 6.0)
"""A worker is killed after so long, drawn for each."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what was done and whether it held; return the exit status."""
    options = _options(arguments)
    _campaign.preload()
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        folder = Path(name)
        report = {}
        if options.random or options.steps != "0":
            seconds = uninterrupted(folder / "whole", options.sampler)
            print(f"uninterrupted: {seconds:.1f} s", flush=True)
        if options.random:
            draws = random.Random(options.seed)
            report["random moments"] = killed(
                folder, "random", options.sampler, options.random, lambda: draws.uniform(0, seconds)
            )
        if options.steps != "0":
            most = None if options.steps == "all" else int(options.steps)
            report["durable steps"] = killed(folder, "steps", options.sampler, most)
        if options.workers:
            report["workers"] = workers_killed(folder / "workers", options.workers)
    print(json.dumps(report))
    return int(any(found["wrong"] for found in report.values()))


def uninterrupted(folder: Path, sampler: str) -> float:
    """Run the campaign as it is; return how long it takes."""
    file = _campaign.write(folder, sampler=sampler, trials=TRIALS, workers=0)
    start = time.monotonic()
    status = _campaign.wait(_campaign.start(["search", str(file)], folder / "log"))
    assert status == 0, (folder / "log.output").read_text()
    return time.monotonic() - start


def killed(
    folder: Path,
    name: str,
    sampler: str,
    kills: int | None,
    moment: Callable[[], float] | None = None,
) -> dict[str, object]:
    """Run the campaign again and again, killing and resuming it, until it was killed often enough.

    Args:
        folder: Where `whole` is.
        name: Of the folder of these runs.
        sampler: Of the campaign.
        kills: How many; None: until every durable step of one campaign was met.
        moment: Draws seconds after which the driver is killed; a run that is over by then makes the next
            ones shorter, one that is killed, longer. None: it is killed before the next durable step.
    """
    done, campaigns, passed_by, share, wrong = 0, 0, 0, 1.0, list[str]()
    while kills is None or done < kills:
        here = folder / f"{name}-{campaigns}"
        file = _campaign.write(here, sampler=sampler, trials=TRIALS, workers=0)
        log, out, step, finished = here / "log", here / "out", 0, set[str]()
        begun, marks = 0, 0
        while True:
            command = ["resume", str(out)] if (out / "study.db").exists() else ["search", str(file)]
            last = kills is not None and done >= kills
            die_at = None if last or moment is not None else step
            child = _campaign.start(command, log, die_at)
            if moment is not None and not last:
                time.sleep(moment() * share)
                os.kill(child, signal.SIGKILL)
            status = _campaign.wait(child)
            share = min(1.0, 1.1 * share) if status else 0.8 * share
            again = finished & {
                n for n, split in _campaign.evaluated(log)[begun:] if split == "search"
            }
            begun = len(_campaign.evaluated(log))
            wrong += [f"{here.name}: {one} was evaluated again" for one in sorted(again)]
            lost = finished - _campaign.told(out)
            wrong += [f"{here.name}: {one} was lost" for one in sorted(lost)]
            finished = _campaign.told(out)
            if status == 0:
                break
            if status != -signal.SIGKILL:
                wrong.append(f"{here.name}: {command[0]} ended with status {status}: {_end(log)}")
                break
            done += 1
            # One new mark a run: a resumed driver first meets the steps of its own start.
            new, marks = _campaign.written(out) - marks, _campaign.written(out)
            step = max(0, step + 1 - min(new, 2))
            passed_by += max(0, new - 1)
        campaigns += 1
        wrong += compared(folder / "whole" / "out", here / "out")
        if kills is None:
            break
    found = {"kills": done, "campaigns": campaigns, "wrong": wrong}
    if moment is None:
        found["steps passed by"] = passed_by
    print(f"{name}: {found}", flush=True)
    return found


def workers_killed(folder: Path, kills: int) -> dict[str, object]:
    """Kill workers of one campaign, one after the other, as soon as each has worked for a while."""
    import psutil

    file = _campaign.write(folder, sampler="random", trials=TRIALS_WITH_WORKERS, workers=2)
    driver = subprocess.Popen(
        [sys.executable, "-m", "evomerge", "search", str(file), "--display", "none"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=_campaign.ROOT,
    )
    end: dict[int, float] = {}
    draws, done = random.Random(0), 0
    while done < kills and driver.poll() is None:
        time.sleep(0.1)
        for process in psutil.Process(driver.pid).children(recursive=True):
            try:
                working = process.name().startswith("ray::Worker.ans")
            except psutil.Error:
                continue
            if working and process.pid not in end and _evaluates(folder / "out"):
                end[process.pid] = time.monotonic() + draws.uniform(*SECONDS_OF_WORK)
            if done < kills and time.monotonic() > end.get(process.pid, float("inf")):
                process.kill()
                del end[process.pid]
                done += 1
    output, _ = driver.communicate()
    found = _campaign.points(folder / "out")
    states = Counter(state for _, state, *_ in found)
    wrong = [] if driver.returncode == 0 else [f"status {driver.returncode}: {output[-500:]}"]
    if [number for number, *_ in found] != list(range(TRIALS_WITH_WORKERS)) or states["asked"]:
        wrong.append(f"trials not accounted for: {dict(states)}")
    if done < kills:
        wrong.append(f"the campaign was over after {done} kills")
    print(f"workers: {done} kills, trials {dict(states)}, wrong: {wrong or 'nothing'}", flush=True)
    return {"kills": done, "trials": dict(states), "wrong": wrong}


def compared(whole: Path, other: Path) -> list[str]:
    """Say in what a results folder differs from that of an uninterrupted campaign."""
    name, wrong = other.parent.name, []
    if not (other / "leaderboard.json").exists():
        return [f"{name}: not finished"]
    ours, theirs = _campaign.points(other), _campaign.points(whole)
    if ours != theirs:
        numbers = [a[0] for a, b in zip(ours, theirs, strict=False) if a != b]
        wrong.append(f"{name}: {len(ours)} trials for {len(theirs)}, unlike: {numbers}")
    if _campaign.winner(other) != _campaign.winner(whole):
        wrong.append(f"{name}: another winner")
    return wrong


def _evaluates(out: Path) -> bool:
    return (out / "study.db").exists() and bool(_campaign.told(out))


def _end(log: Path) -> str:
    return log.with_suffix(".output").read_text()[-500:]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--random", type=int, default=50, help="kills at random moments")
    parser.add_argument("--steps", default="all", help="durable steps to kill at: all, or how many")
    parser.add_argument("--workers", type=int, default=0, help="workers to kill")
    parser.add_argument("--sampler", default="cmaes")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
