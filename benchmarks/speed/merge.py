"""Merging at the speed of memory: a live write against a plain copy, and against mergekit.

    python -m benchmarks.speed.merge [--parameters 500_000_000] [--methods linear ties] [--rounds 7]
    python -m benchmarks.speed.merge --base DIR --experts DIR DIR     # a real family
    python -m benchmarks.speed.merge --part scaling | mergekit | memory
    python -m benchmarks.speed.merge --part bandwidth --device cuda

All in one process, in turns, on as many threads; times are the least of all turns, on a CPU with one thread
in processor seconds. The bytes that must move are those of base and experts as they are stored, and of the
result; the copy is `torch.Tensor.copy_` that reads and writes as many. `new weights` has other weights in
each turn, `new densities` other densities, too. Without numba, or Triton on a GPU, it is the eager maths.
mergekit is warm, too, in the same process and on as many threads. On a GPU everything is resident there,
`copy` is one within its memory, and `queued` is the time of the GPU alone: of work that the host had queued
before it began.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed._families import SHAPES, family
from evomerge import candidate as recipe
from evomerge.candidate import Recipe, Source
from evomerge.merge import fused, fused_gpu
from evomerge.merge.checkpoint import open_checkpoint
from evomerge.merge.live import LiveModel
from evomerge.merge.methods import METHODS
from evomerge.merge.saving import save

METHODS_SHOWN = ("linear", "task_arithmetic", "ties", "dare_linear", "dare_ties")
COPIED = 1 << 28  # bytes that a turn of the copy reads, again and again
UNBOUNDED = 1 << 50  # bytes
MEGABYTE = 2**20


def main() -> None:
    """Print the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=["bandwidth", "scaling", "mergekit", "memory"])
    parser.add_argument("--parameters", type=int, default=500_000_000)
    parser.add_argument("--methods", nargs="+", default=METHODS_SHOWN)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="of live weights and maths: cpu or cuda")
    parser.add_argument("--base", help="folder of a real base, instead of random numbers")
    parser.add_argument("--experts", nargs="+", default=[])
    parser.add_argument("--scratch", type=Path, help="keep the random families here")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    logging.disable(logging.WARNING)
    installed = fused_gpu.available() if _on_gpu(chosen) else fused.available()
    how = "one pass" if installed else "eager"
    where = torch.cuda.get_device_name() if _on_gpu(chosen) else f"{chosen.threads} thread(s)"
    print(f"torch {torch.__version__}, {where}, {how}")
    with tempfile.TemporaryDirectory() as folder:
        scratch = chosen.scratch or Path(folder)
        models = [chosen.base, *chosen.experts]
        if chosen.base is None:
            models = family(scratch, chosen.parameters, device=chosen.device)
        for part in [chosen.part] if chosen.part else ["bandwidth", "mergekit"]:
            PARTS[part](models, chosen, scratch)


def bandwidth(models: Sequence[str], chosen: argparse.Namespace, _scratch: Path) -> None:
    """Print how long live writes take, and as a share of the copy's speed."""
    live, numbers, moved = _resident(models, chosen)
    print(
        f"{numbers / 1e6:.0f} M parameters, {len(models) - 1} experts, {moved / 1e9:.2f} GB to move"
    )
    queued = f"{'queued':>9}{'share':>8}" if _on_gpu(chosen) else ""
    heads = f"{'seconds':>9}{'ns/param':>10}{'GB/s':>7}{'copy':>7}{'share':>8}"
    print(f"{'method':18}{'':16}{heads}{queued}")
    for method in chosen.methods:
        for what in ("weights", "densities")[: 1 + ("density" in METHODS[method].parameters)]:
            turn = iter(range(1000))

            def write(method: str = method, what: str = what, turn: Any = turn) -> None:
                live.write(made(method, models, next(turn), densities=what == "densities"))

            ours, copied = _turns([write, lambda: _copy(moved, chosen.device)], chosen)
            alone = _queued(write, chosen.rounds) if _on_gpu(chosen) else None
            print(
                f"{method:18}{'new ' + what:16}{ours:9.3f}{1e9 * ours / numbers:10.2f}"
                f"{moved / ours / 1e9:7.1f}{moved / copied / 1e9:7.1f}{copied / ours:8.0%}"
                + ("" if alone is None else f"{alone:9.4f}{copied / alone:8.0%}"),
                flush=True,
            )


def scaling(_models: Sequence[str], chosen: argparse.Namespace, scratch: Path) -> None:
    """Print nanoseconds a parameter by size, and by number of experts."""
    for method in chosen.methods:
        for parameters in (size for size in SHAPES if size <= chosen.parameters):
            models = family(scratch, parameters)
            rows = [models] if parameters < 100_000_000 else [models[:2], models[:3], models]
            for few in rows:
                live, numbers, _ = _resident(few, chosen)
                turn = iter(range(1000))

                def write(
                    method: str = method,
                    few: Sequence[str] = few,
                    live: Any = live,
                    turn: Any = turn,
                ) -> None:
                    live.write(made(method, few, next(turn), densities=False))

                (ours,) = _turns([write], chosen)
                size, each = f"{numbers / 1e6:8.1f} M{len(few) - 1:3} experts", 1e9 * ours / numbers
                print(f"{method:18}{size}{each:8.2f} ns", flush=True)


def mergekit(models: Sequence[str], chosen: argparse.Namespace, scratch: Path) -> None:
    """Print live writes and saving against mergekit: in memory, and to disk in a warm process."""
    live, _, _ = _resident(models, chosen)
    columns = ("live", "disk", "in memory", "to disk", "live ×", "live × disk", "disk ×")
    print(f"{'method':18}" + "".join(f"{name:>13}" for name in columns))
    for method in chosen.methods:
        wanted = made(method, models, 0, densities=True)
        theirs, ours = scratch / "theirs", scratch / "ours"
        work = [
            lambda wanted=wanted: live.write(wanted),
            lambda wanted=wanted, out=ours: save(wanted, out, replace=True),
            lambda wanted=wanted: _mergekit_in_memory(wanted, live),
            lambda wanted=wanted, out=theirs: _mergekit_to_disk(wanted, out),
        ]
        quick, disk, memory, yaml = _turns(work, chosen)
        for folder in (ours, theirs):
            shutil.rmtree(folder)
        seconds = "".join(f"{value:11.3f} s" for value in (quick, disk, memory, yaml))
        ratios = "".join(f"{value:13.1f}" for value in (memory / quick, yaml / quick, yaml / disk))
        print(f"{method:18}{seconds}{ratios}", flush=True)


def memory(models: Sequence[str], chosen: argparse.Namespace, scratch: Path) -> None:
    """Print the peak of anonymous memory of a process that writes each merge to disk."""
    size = sum(file.stat().st_size for file in Path(models[0]).glob("*.safetensors"))
    for method in chosen.methods:
        file = scratch / "recipe.yaml"
        recipe.save(made(method, models, 0, densities=True), file)
        peak = anonymous_peak(
            [sys.executable, "-m", "evomerge", "merge", str(file), str(scratch / "out")]
        )
        shutil.rmtree(scratch / "out")
        print(
            f"{method:18}{size / MEGABYTE:8.0f} MB written, {peak / MEGABYTE:6.0f} MB anonymous at most"
        )
    for resident, part in mapped(models):
        whole, own = resident / MEGABYTE, part / MEGABYTE
        print(f"one of two workers: {whole:.0f} MB of the experts' files, {own:.0f} MB its part")


def mapped(models: Sequence[str], workers: int = 2) -> list[tuple[int, int]]:
    """Let processes merge at the same time; return of each what it maps of the experts' files, in bytes.

    The base's file is left out: transformers maps it privately, and the live weights lie there.

    Returns:
        What is resident of them, and the process's part of it: a page that n processes share counts 1/n.
    """
    code = (
        "import sys; from evomerge.merge.live import LiveModel; from benchmarks.speed.merge import made; "
        "models = sys.argv[1:]; live = LiveModel(models, dtype='bfloat16'); "
        "live.write(made('ties', models, 0, densities=False)); print('ready', flush=True); input()"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, *models], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(workers)
    ]
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()
    found = [_mapped(process.pid, models[1:]) for process in started]
    for process in started:
        process.communicate(b"\n")
    return found


def _mapped(pid: int, models: Sequence[str]) -> tuple[int, int]:
    resident = proportional = 0
    ours = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        key, value = line.split()[:2]
        if not key.endswith(":"):
            ours = any(model in line for model in models)
        elif ours and key == "Rss:":
            resident += 1024 * int(value)
        elif ours and key == "Pss:":
            proportional += 1024 * int(value)
    return resident, proportional


def anonymous_peak(command: Sequence[str]) -> int:
    """Run a command; return the most anonymous memory that it held, in bytes, read every few milliseconds."""
    most = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            lines = status.read_text().splitlines()
            found = [line.split()[1] for line in lines if line.startswith("RssAnon")]
            most = max([most, *(1024 * int(value) for value in found)])
            time.sleep(0.005)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return most


def made(method: str, models: Sequence[str], turn: int, *, densities: bool) -> Recipe:
    """Return a recipe with weights, and densities, that no other turn has."""
    base, *experts = models

    def parameters(place: int) -> dict[str, Any]:
        found = {"weight": 0.3 + 0.01 * turn + 0.1 * place}
        if "density" in METHODS[method].parameters:
            found["density"] = 0.5 + 0.003 * (turn * densities) + 0.1 * place
        return found

    named = [Source(model, parameters=parameters(place)) for place, model in enumerate(experts)]
    if not METHODS[method].uses_base:
        named.insert(0, Source(base, parameters={"weight": 0.5}))
    base_model = base if METHODS[method].uses_base else None
    return Recipe(method=method, models=tuple(named), base_model=base_model, dtype="bfloat16")


def _resident(models: Sequence[str], chosen: argparse.Namespace) -> tuple[LiveModel, int, int]:
    """Return a live model, its parameters, and the bytes that a merge must move."""
    headers = [open_checkpoint(model).tensors.values() for model in models]
    numbers = sum(header.numel for header in headers[0])
    read = sum(header.nbytes for each in headers for header in each)
    kept = UNBOUNDED if _on_gpu(chosen) else None
    live = LiveModel(models, dtype="bfloat16", device=chosen.device, resident_bytes=kept)
    return live, numbers, read + 2 * numbers


def _on_gpu(chosen: argparse.Namespace) -> bool:
    return torch.device(chosen.device).type == "cuda"


def _turns(work: Sequence[Callable[[], object]], chosen: argparse.Namespace) -> list[float]:
    """Return the least time of each, having warmed up: what else the machine does only adds to it."""
    clock = time.process_time if chosen.threads == 1 else time.perf_counter
    if _on_gpu(chosen):
        clock = _done
    times: list[list[float]] = [[] for _ in work]
    for _ in range(chosen.rounds + 1):
        for one, found in zip(work, times, strict=True):
            start = clock()
            one()
            found.append(clock() - start)
    return [min(found[1:]) for found in times]


def _done() -> float:
    """Return the time when the GPU has done all that it was given."""
    torch.cuda.synchronize()
    return time.perf_counter()


def _queued(work: Callable[[], object], rounds: int) -> float:
    """Return the least time that a GPU takes for work that waits for it, in seconds."""
    times = []
    for _ in range(rounds):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(10**8)  # cycles, in which the host queues what follows
        begin.record()
        work()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1000)
    return min(times)


def _copy(moved: int, device: str) -> None:
    """Read and write as many bytes."""
    if not _COPY:
        _COPY.extend(torch.ones(COPIED, dtype=torch.uint8, device=device) for _ in range(2))
    source, target = _COPY
    whole, rest = divmod(moved // 2, COPIED)
    for _ in range(whole):
        target.copy_(source)
    target[:rest].copy_(source[:rest])


_COPY: list[torch.Tensor] = []


def _mergekit_in_memory(made: Recipe, live: LiveModel) -> None:
    """Do what `mergekit-evolve --in-memory` does of a candidate, with its models loaded."""
    from mergekit.architecture import arch_info_for_config
    from mergekit.graph import Executor
    from mergekit.merge import MergeOptions
    from mergekit.plan import MergePlanner

    config, loaded = live.module.config, dict(live.module.named_parameters())
    planner = MergePlanner(
        _mergekit_config(made), arch_info_for_config(config), MergeOptions(quiet=True), config
    )
    planner._plan()  # plan_in_memory's own tasks need an older pydantic
    names = {task: weight.name for weight, task in planner._tensors}
    for task, value in Executor(list(names), math_device="cpu").run(quiet=True):
        loaded[names[task]].data.copy_(value, non_blocking=True)


def _mergekit_to_disk(made: Recipe, out: Path) -> None:
    from mergekit.merge import MergeOptions, run_merge

    options = MergeOptions(copy_tokenizer=False, quiet=True)
    run_merge(_mergekit_config(made), str(out), options)


def _mergekit_config(made: Recipe) -> Any:
    import yaml
    from mergekit.config import MergeConfiguration

    return MergeConfiguration.model_validate(yaml.safe_load(recipe.dumps(made)))


PARTS = {"bandwidth": bandwidth, "scaling": scaling, "mergekit": mergekit, "memory": memory}

if __name__ == "__main__":
    main()
