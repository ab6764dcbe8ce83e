"""How often a whole campaign claims a gain where there is none.

    python -m benchmarks.statistics.no_signal [--campaigns 200]

Every campaign is run for real, on a family and tasks of its own: a tiny random base, experts that are the
base and noise, and questions with two answers of which a coin says which is right. So whatever is merged is
right on half of all questions that could be asked, and whatever a search finds is luck. A campaign claims a
gain if its winner is better than the best naive merge on the holdout items, with p below 0.05 after Holm's
correction.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from evomerge.config import Campaign
from evomerge.report.evidence import Contrast
from evomerge.run import search

SIGNIFICANT = 0.05
EXPERTS, TASKS = 2, 2
ITEMS = {"search": 24, "select": 24, "holdout": 100}
SPECIAL = ("<pad>", "<s>", "</s>")
DOCUMENTS = """\
import random

import datasets


def load(seed, count, **_):
    rng = random.Random(seed)
    word = lambda: "".join(rng.choices("abcdefghijklmnop", k=4))
    docs = [
        {"question": word() + " " + word(), "answers": [word(), word()], "right": rng.randrange(2)}
        for _ in range(count)
    ]
    return {"test": datasets.Dataset.from_list(docs)}
"""
TASK = """\
task: coin{number}
custom_dataset: !function documents.load
dataset_kwargs: {{seed: {seed}, count: {count}}}
test_split: test
output_type: multiple_choice
doc_to_text: question
doc_to_choice: answers
doc_to_target: right
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


@dataclass(frozen=True)
class Found:
    """What one campaign said.

    Attributes:
        tests: Its winner against the best expert, and the best naive merge.
        search: Of the winner, the mean on the items that it was searched on.
        holdout: On items that nothing was chosen by.
    """

    tests: tuple[Contrast, ...]
    search: float
    holdout: float

    @property
    def gain(self) -> bool:
        """Whether it claims one against the best naive merge."""
        return any(
            one.part == "best baseline"
            and one.p_corrected < SIGNIFICANT
            and one.test.difference > 0
            for one in self.tests
        )


def campaign(folder: Path, seed: int, *, sampler: str = "cmaes", trials: int = 12) -> Found:
    """Run one campaign from start to end in a new folder."""
    base, experts = _save_family(folder, seed)
    tasks = folder / "tasks"
    tasks.mkdir()
    (tasks / "documents.py").write_text(DOCUMENTS)
    for number in range(TASKS):
        text = TASK.format(number=number, seed=seed * TASKS + number, count=sum(ITEMS.values()) + 9)
        (tasks / f"coin{number}.yaml").write_text(text)
    settings = Campaign.model_validate(
        {
            "name": f"no signal {seed}",
            "models": {"base": base, "experts": list(experts), "dtype": "float32"},
            "space": {
                "method": "task_arithmetic",
                "parameters": {"weight": {"low": -1.0, "high": 2.0}},
            },
            "objectives": [{"task": f"coin{number}", "metric": "acc"} for number in range(TASKS)],
            "tasks_path": str(tasks),
            "items": {**ITEMS, "seed": seed},
            "search": {"sampler": sampler, "trials": trials, "finalists": 4, "seed": seed},
            "workers": {"count": 0},
            "out": str(folder / "results"),
        }
    )
    board = search(settings).leaderboard
    (winner,) = board.winners
    means = (winner.objective("search"), winner.objective("holdout"))
    return Found(board.tests.contrasts, means[0] or 0.0, means[1] or 0.0)


def run(seeds: Sequence[int]) -> list[Found]:
    """Run a campaign a seed, one after the other in this process."""
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()
    found = []
    for seed in seeds:
        with TemporaryDirectory(prefix="no-signal-") as folder:
            found.append(campaign(Path(folder), seed))
    return found


def _save_family(folder: Path, seed: int, *, noise: float = 0.3) -> tuple[str, tuple[str, ...]]:
    """Save a random base, and experts that are the base and noise of `noise` times its size."""
    tokenizer = _tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        dtype="float32",
    )
    generator = torch.Generator().manual_seed(seed)
    model = LlamaForCausalLM(config).eval()
    drawn = {
        name: (1.0 if value.ndim == 1 else 0.0)
        + 0.25 * torch.randn(value.shape, generator=generator)
        for name, value in model.named_parameters()
    }
    names = ("base", *(f"expert{number}" for number in range(EXPERTS)))
    for name in names:
        size = 0.0 if name == "base" else noise
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                other = 0.25 * torch.randn(parameter.shape, generator=generator)
                parameter.copy_(drawn[key] + size * other)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    base, *experts = (str(folder / name) for name in names)
    return base, tuple(experts)


def _tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate((*SPECIAL, *alphabet))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--campaigns", type=int, default=200)
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    count = arguments.processes
    shares = [range(first, arguments.campaigns, count) for first in range(count)]
    with ProcessPoolExecutor(count) as processes:
        found = list(itertools.chain.from_iterable(processes.map(run, shares)))
    gains = sum(one.gain for one in found)
    print(f"{gains} of {len(found)} campaigns claim a gain over the best naive merge")
    raw = [one.test.p for each in found for one in each.tests if one.part == "best baseline"]
    print(f"p below 0.05 before the correction: {sum(p < SIGNIFICANT for p in raw)} of {len(raw)}")
    for split in ("search", "holdout"):
        mean = sum(getattr(one, split) for one in found) / len(found)
        print(f"the winner's mean on {split}: {mean:.3f}")


if __name__ == "__main__":
    main()
