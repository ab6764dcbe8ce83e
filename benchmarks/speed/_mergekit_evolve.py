"""mergekit-evolve as a peer: an environment of its own, a Ray of its own, and what it did when.

Nothing of it is changed. The pins in `mergekit_evolve.txt` are the newest releases that it starts with. On
a machine without GPUs it needs a Ray that was told of as many GPUs as it shall have workers.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.speed._processes import Line, cpu_seconds_of, running

PINS = Path(__file__).with_name("mergekit_evolve.txt")
PROBE = Path(__file__).with_name("_probe.py")
CACHE = Path.home() / ".cache" / "evomerge" / "peers" / "mergekit-evolve"
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "PYTHONUNBUFFERED": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_DEDUP_LOGS": "0",  # every line of progress counts
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's own switch to loopback
}
OBJECT_STORE_BYTES = 100 * 2**20
BEST, NEW_BEST = "best_config.yaml", "Merge configuration:"
SECONDS_TO_START_RAY = 90.0
WORKER = r"\(InMemoryMergeEvaluator pid=(\d+)\)"
BEGUN = re.compile(WORKER + r".* Model initialized")
ENDED = re.compile(WORKER + r".*\[helpers\.py:\d+\] \{")  # it logs what lm-eval returned


@dataclass
class Timeline:
    """When the peer's workers evaluated; seconds since its start.

    Attributes:
        begun: Process of a worker → when its model stood ready for its first evaluation.
        ended: Process of a worker → when each of its evaluations ended, and the processor seconds that
            the worker had taken by then since `begun`.
        finished: When it ended by itself; None if it was stopped.
    """

    begun: dict[int, float] = field(default_factory=dict)
    ended: dict[int, list[tuple[float, float]]] = field(default_factory=dict)
    finished: float | None = None
    _cpu: dict[int, float] = field(default_factory=dict)

    def note(self, line: Line, cpu_seconds: Callable[[int], float] = cpu_seconds_of) -> None:
        """Read one line of its output."""
        if found := BEGUN.search(line.text):
            worker = int(found[1])
            self.begun[worker], self.ended[worker] = line.seconds, []
            self._cpu[worker] = cpu_seconds(worker)
        elif found := ENDED.search(line.text):
            worker = int(found[1])
            self.ended[worker].append((line.seconds, cpu_seconds(worker) - self._cpu[worker]))

    @property
    def evaluations(self) -> int:
        """Evaluations that ended."""
        return sum(map(len, self.ended.values()))

    @property
    def per_minute(self) -> float:
        """Evaluations a minute of all workers together, each from its model's readiness to its last end."""
        return 60 * sum(
            len(ends) / (ends[-1][0] - self.begun[worker])
            for worker, ends in self.ended.items()
            if ends
        )

    @property
    def cpu_seconds_each(self) -> float:
        """Processor seconds of a worker for one evaluation."""
        return sum(ends[-1][1] for ends in self.ended.values() if ends) / self.evaluations

    @property
    def start_up(self) -> float:
        """Seconds until the last of the workers stood ready."""
        return max(self.begun.values())


def build_environment(folder: Path = CACHE) -> Path:
    """Install mergekit-evolve with its pins, once.

    Args:
        folder: The virtual environment; one that was built with other pins is rebuilt.

    Returns:
        Its `bin`.
    """
    stamp = folder / "pins.sha256"
    pins = hashlib.sha256(PINS.read_bytes()).hexdigest()
    programs = folder / "bin"
    if not stamp.exists() or stamp.read_text(encoding="ascii") != pins:
        print(f"building {folder}: some minutes, once", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(programs / "python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "--disable-pip-version-check", "-r", str(PINS)], check=True)
        stamp.write_text(pins, encoding="ascii")
    return programs


def probe(
    python: str | Path, model: Path, tasks_path: Path, tasks: Sequence[str], limit: int
) -> Any:
    """Return what the libraries beside an interpreter make of a model and of tasks; see `_probe.py`."""
    command = [python, PROBE, model, tasks_path, limit, *tasks]
    answer = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **QUIET, "HF_HOME": str(tasks_path / "hf")},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if answer.returncode:
        raise RuntimeError(f"the probe failed in {python}:\n{answer.stderr[-2000:]}")
    return json.loads(answer.stdout.splitlines()[-1])


def check_agreement(
    python: Path, model: Path, tasks_path: Path, tasks: Sequence[str], limit: int
) -> None:
    """Check that a peer's libraries read a model and tasks as those of this environment do.

    Raises:
        RuntimeError: Tokens, logits or requests differ.
    """
    theirs = probe(python, model, tasks_path, tasks, limit)
    ours = probe(sys.executable, model, tasks_path, tasks, limit)
    apart = max(abs(a - b) for a, b in zip(theirs["logits"], ours["logits"], strict=True))
    if theirs["tokens"] != ours["tokens"] or theirs["requests"] != ours["requests"] or apart > 1e-4:
        raise RuntimeError(
            f"the peer's libraries read {model.name} or {', '.join(tasks)} in another way: "
            f"tokens alike: {theirs['tokens'] == ours['tokens']}, requests alike: "
            f"{theirs['requests'] == ours['requests']}, logits {apart:g} apart"
        )


def genome(
    base: Path,
    experts: Sequence[Path],
    method: str,
    tasks: Mapping[str, str],
    *,
    limit: int,
    layer_granularity: int,
    filters: Sequence[str] = (),
) -> dict[str, Any]:
    """Return a configuration of mergekit-evolve.

    Args:
        base: The base model.
        experts: The others.
        method: A merge method that it can search.
        tasks: Task → metric, such as `acc,none`; equal weights.
        limit: Items of each task.
        layer_granularity: Layers that share their numbers.
        filters: Groups of tensors with numbers of their own.
    """
    return {
        "genome": {
            "models": [str(expert) for expert in experts],
            "base_model": str(base),
            "merge_method": method,
            "layer_granularity": layer_granularity,
            **({"filters": list(filters)} if filters else {}),
        },
        "tasks": [
            {"name": task, "metric": metric, "weight": 1 / len(tasks)}
            for task, metric in tasks.items()
        ],
        "limit": limit,
        "apply_chat_template": False,
        "fewshot_as_multiturn": False,
    }


def evolve(
    programs: Path,
    settings: Mapping[str, Any],
    tasks_path: Path,
    storage: Path,
    *,
    workers: int,
    evaluations: int,
    watch: Callable[[Timeline, Line], bool] = lambda timeline, line: False,
) -> Timeline:
    """Run mergekit-evolve in memory, with its pool of workers.

    Args:
        programs: `bin` of its environment.
        settings: Its configuration.
        tasks_path: Folder of task files.
        storage: A new folder for all that it writes, its log among them.
        workers: How many, a core each.
        evaluations: Its budget, which it exceeds to complete a generation.
        watch: Sees every line of output; true ends the run. The best configuration so far is in
            `storage / BEST` from the line that begins with `NEW_BEST` on.

    Raises:
        RuntimeError: It, or its Ray, failed.
    """
    storage.mkdir(parents=True)
    config = storage / "evolve.yaml"
    config.write_text(json.dumps(settings), encoding="utf-8")
    command: list[str | Path] = [
        programs.absolute() / "mergekit-evolve",
        config,
        "--storage-path",
        storage,
        "--in-memory",
    ]
    command += ["--strategy", "pool", "--num-gpus", str(workers), "--max-fevals", str(evaluations)]
    command += ["--task-search-path", tasks_path, "--batch-size", "64", "--no-merge-cuda"]
    command += ["--no-reshard", "--no-wandb", "--no-vllm", "--no-save-final-model"]
    timeline = Timeline()
    with _ray(programs, workers, storage) as address:
        variables = {**QUIET, "RAY_ADDRESS": address, "HF_HOME": str(storage / "hf")}
        log = storage / "evolve.log"
        with running(command, environment=variables, log=log, folder=storage) as process:
            for line in process.lines():
                timeline.note(line)
                if watch(timeline, line):
                    return timeline
            code = process.process.wait()
            timeline.finished = time.monotonic() - process.start
    if code:
        tail = (storage / "evolve.log").read_text(encoding="utf-8")[-3000:]
        raise RuntimeError(f"mergekit-evolve ended with status {code}:\n{tail}")
    return timeline


@contextmanager
def _ray(programs: Path, workers: int, storage: Path) -> Iterator[str]:
    """Start a Ray of the peer's own on loopback, and end that one only."""
    port = _free_port()
    with tempfile.TemporaryDirectory(
        prefix="peer-", dir="/tmp", ignore_cleanup_errors=True
    ) as folder:
        command: list[str | Path] = [
            programs / "ray",
            "start",
            "--head",
            "--block",
            "--disable-usage-stats",
        ]
        command += ["--node-ip-address=127.0.0.1", f"--port={port}", f"--temp-dir={folder}"]
        command += [f"--num-gpus={workers}", f"--num-cpus={workers}", "--include-dashboard=false"]
        command += [f"--object-store-memory={OBJECT_STORE_BYTES}"]
        variables = {**QUIET, "RAY_ADDRESS": None, "HF_HOME": str(storage / "hf")}
        log = storage / "ray.log"
        with running(command, environment=variables, log=log, read=False) as process:
            deadline = time.monotonic() + SECONDS_TO_START_RAY
            while "Ray runtime started" not in log.read_text(encoding="utf-8"):
                if process.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"Ray did not start:\n{log.read_text(encoding='utf-8')}")
                time.sleep(0.5)
            yield f"127.0.0.1:{port}"


def _free_port() -> int:
    with socket.socket() as probing:
        probing.bind(("127.0.0.1", 0))
        return int(probing.getsockname()[1])
