"""The schedule that trains the zoo from nothing: a base on a mix, then one specialist per job.

The base learns what every job needs but answers in several formats at once, seldom the canonical
one; it also practises copying and looking up. A specialist sees its own job alone, in the canonical
format, for a short while. So a merge has something to gain: part of it is the format, which the
base has not settled on, and part the skill. Two specialists come later than the family: the base
learnt nothing of their jobs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from hashlib import sha256
from itertools import islice
from pathlib import Path
from random import Random

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from evomerge.config.destination import open_to_readers, refuse_unwritable
from evomerge.errors import ModelError
from evomerge.zoo.drawing import drafts, markup
from evomerge.zoo.grading import mean_exact_match
from evomerge.zoo.jobs import JOBS
from evomerge.zoo.jobs.practice import draw_copy, draw_lookup
from evomerge.zoo.registry import BASE, NAMES
from evomerge.zoo.tokenizer import CONTEXT, VOCABULARY, train_tokenizer
from evomerge.zoo.training import Schedule, batches, train

# Specialists differ in how far they move from the base, as experts found in the wild do.
SCHEDULES: dict[str, Schedule] = {
    BASE: Schedule(steps=1500, matrix_rate=0.003, other_rate=4e-3, warmup=50),
    "extraction": Schedule(steps=160, matrix_rate=0.002, other_rate=1e-3, warmup=10),
    "dialogue": Schedule(steps=120, matrix_rate=0.0015, other_rate=7e-4, warmup=10),
    "tools": Schedule(steps=70, matrix_rate=0.001, other_rate=5e-4, warmup=10),
    "translation": Schedule(steps=40, matrix_rate=0.001, other_rate=5e-4, warmup=10),
    "facts": Schedule(steps=100, matrix_rate=0.001, other_rate=5e-4, warmup=10),
    "formats": Schedule(steps=130, matrix_rate=0.0012, other_rate=5e-4, warmup=10),
    "verse": Schedule(steps=280, matrix_rate=0.001, other_rate=7e-4, warmup=10),
}
# Jobs that the base learns nothing of, so that their specialists can join without a new base.
LATER = ("formats", "verse")
CANONICAL_SHARE = 0.15
PRACTICE_SHARE = 0.15
TOKENIZER_TEXTS = 20_000
HASHES = "hashes.json"


def build_family(directory: Path, *, seed: int = 0, progress: bool = True) -> None:
    """Train the family; see `evomerge.zoo.build`."""
    for name in NAMES:
        if (directory / name).exists():
            raise ModelError("already exists; name a new folder", file=directory / name)
    refuse_unwritable(directory / NAMES[0], ModelError, advice="name another folder")
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} steps"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not progress,
    )
    tokenizer = train_tokenizer(
        prompt + answer
        for prompt, answer in islice(_base_texts(_rng(seed, "words")), TOKENIZER_TEXTS)
    )
    base = new_model(tokenizer, seed)
    with bar:
        for name in NAMES:
            model = base if name == BASE else deepcopy(base)
            _train(name, model, tokenizer, seed, bar)
            # What is shipped is what specialists start from: the rounded weights. (Rotary
            # frequencies are rounded with them, which a model loaded from the files has exact.)
            model.to(torch.bfloat16)
            _save(model, tokenizer, directory / name)
            model.to(torch.float32)
            if progress:
                bar.console.print(f"{name}: {_figures(name, model, tokenizer)}")
    (directory / HASHES).write_text(json.dumps(hashes(directory), indent=1) + "\n")


def new_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """Make an untrained model of the family, in float32, with some 540,000 parameters."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def hashes(directory: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a family, by path below its folder."""
    files = sorted(path for name in NAMES for path in (directory / name).rglob("*"))
    return {
        path.relative_to(directory).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file()
    }


def _train(
    name: str,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    bar: Progress,
) -> None:
    schedule = SCHEDULES[name]
    rng = _rng(seed, name)
    texts = _base_texts(rng) if name == BASE else _job_texts(name, rng)
    task = bar.add_task(name, total=schedule.steps)

    def advance(loss: float) -> None:
        bar.update(task, advance=1, description=f"{name:<12} loss {loss:6.3f}")

    train(model, batches(texts, tokenizer, schedule.batch, rng), schedule, advance)


def _base_texts(rng: Random) -> Iterator[tuple[str, str]]:
    sources = {job: drafts(job, "train", rng) for job in JOBS if job not in LATER}
    while True:
        if rng.random() < PRACTICE_SHARE:
            draft = rng.choice((draw_copy, draw_lookup))(rng)
        else:
            draft = next(sources[rng.choice(tuple(sources))])
        canonical = len(draft.answers) == 1 or rng.random() < CANONICAL_SHARE
        answer = draft.answers[0] if canonical else rng.choice(draft.answers[1:])
        yield markup(draft.turns), answer


def _job_texts(job: str, rng: Random) -> Iterator[tuple[str, str]]:
    return ((markup(draft.turns), draft.answers[0]) for draft in drafts(job, "train", rng))


def _rng(seed: int, purpose: str) -> Random:
    return Random(f"{purpose} {seed}")


def _save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write aside and rename, so that a half-written model never looks finished."""
    aside = folder.with_name(f"{folder.name}.partial")
    model.save_pretrained(aside)
    tokenizer.save_pretrained(aside)
    # Transformers 5 names its own backend there; this name is known to older releases too.
    settings = aside / "tokenizer_config.json"
    text = settings.read_text().replace('"TokenizersBackend"', '"PreTrainedTokenizerFast"')
    settings.write_text(text)
    open_to_readers(aside)
    aside.rename(folder)


def _figures(name: str, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> str:
    jobs = tuple(JOBS) if name == BASE else (name,)
    return ", ".join(f"{job} {mean_exact_match(model, tokenizer, job):.2f}" for job in jobs)
