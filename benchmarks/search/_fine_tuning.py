"""Fine-tuning of a merge on few items: all weights or LoRA, on the answers or on the experts' predictions."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.search._few_items import FewItems, Scores
from evomerge.zoo.training import TrainingBatch, pad_batch

BATCH = 16
"""Items of each job in one step, as in the search."""
CHECKPOINTS = (5, 10, 20, 40, 80, 160, 320, 640, 1280)
"""After so many steps, and when the time is up, the weights are scored on `select`."""
FULL_RATES = (3e-5, 1e-4, 3e-4, 1e-3)
LORA_RATES = (3e-4, 1e-3, 3e-3, 1e-2)
RANK = 16


@dataclass(frozen=True)
class Tuned:
    """The tuned model that was best on the select items.

    Attributes:
        scores: Its scores.
        rate: AdamW's learning rate.
        steps: Of AdamW.
        seconds: That these steps took.
        steps_in_time: How many steps there was time for, at that rate.
    """

    scores: Scores
    rate: float
    steps: int
    seconds: float
    steps_in_time: int


class Lessons:
    """Batches of a draw's search items, and their loss.

    Args:
        few: The items.
        loss: `gold`: cross-entropy on the answers' tokens. `expert`: divergence from the job's own expert
            on these tokens, but where that expert errs on the item: there cross-entropy.
    """

    def __init__(self, few: FewItems, loss: str) -> None:
        tokenizer: Any = few.live.tokenizer
        padding = tokenizer.pad_token_id
        self._padding = tokenizer.eos_token_id if padding is None else padding
        self._one_by_one = few.suite.device == "cpu"
        self._tokens: dict[str, list[tuple[list[int], list[int]]]] = {}
        self._taught: dict[str, list[Tensor | None]] = {}
        for job in few.suite.jobs:
            prompts, answers = zip(*few.texts(job), strict=True)
            asked = tokenizer(list(prompts))["input_ids"]
            given = tokenizer([answer + few.suite.end for answer in answers])["input_ids"]
            self._tokens[job] = list(zip(asked, given, strict=True))
            self._taught[job] = [None] * len(asked)
        if loss == "expert":
            self._taught = {job: self._teach(few, job) for job in few.suite.jobs}

    def losses(self, module: nn.Module, rng: Random) -> Iterator[Iterator[Tensor]]:
        """Yield, for each step without end, its loss in parts, each a share of the mean.

        One part a job; on a GPU all jobs in one pass, which costs it little more than one job does.
        """
        orders = {job: _endless(range(len(pairs)), rng) for job, pairs in self._tokens.items()}
        while True:
            drawn = [
                [(job, each) for each in itertools.islice(orders[job], min(BATCH, len(pairs)))]
                for job, pairs in self._tokens.items()
            ]
            passes = drawn if self._one_by_one else [list(itertools.chain(*drawn))]
            yield (self._loss(module, part) for part in passes)

    def _loss(self, module: nn.Module, part: Sequence[tuple[str, int]]) -> Tensor:
        """Sum the items' losses, over all that one step draws of all jobs, which draw as many."""
        pairs = [self._tokens[job][each] for job, each in part]
        batch = pad_batch(pairs, self._padding)
        logits, targets = _predicted(module, batch)
        total = torch.zeros((), device=logits.device)
        for row, (job, each) in enumerate(part):
            at, taught = batch.row == row, self._taught[job][each]
            if taught is None:
                total = total + cross_entropy(logits[at], targets[at], reduction="sum")
            else:
                found = logits[at].log_softmax(-1)
                said = taught.float()
                total = total + (said.exp() * (said - found)).sum()
        jobs = self._tokens.values()
        return total / sum(min(BATCH, len(each)) for each in jobs)

    @torch.no_grad()
    def _teach(self, few: FewItems, job: str) -> list[Tensor | None]:
        module = few.module(few.parent(job))
        taught: list[Tensor | None] = []
        for pair in self._tokens[job]:
            logits, targets = _predicted(module, pad_batch([pair], self._padding))
            right = bool((logits.argmax(-1) == targets).all())
            taught.append(logits.log_softmax(-1).half() if right else None)
        return taught


def fine_tune(
    few: FewItems,
    start: nn.Module,
    lessons: Lessons,
    seconds: float,
    *,
    lora: bool,
    rates: Sequence[float] = (),
) -> Tuned:
    """Train at several rates, each for as long; choose rate and length on the select items.

    Args:
        few: Scores what comes of it.
        start: Where training starts; not changed.
        lessons: What is learnt.
        seconds: Of training, as `Suite.now` counts them, at each rate; scoring is not counted.
        lora: Train LoRA adapters of rank 16 on all linear layers, not the weights themselves.
        rates: Constant learning rates of AdamW; none: the usual ones.
    """
    best: tuple[tuple[float, float], dict[str, Tensor], float, int, float] | None = None
    lengths: dict[float, int] = {}
    for rate in rates or (LORA_RATES if lora else FULL_RATES):
        for steps, spent, module in _trained(few, start, lessons, seconds, rate, lora=lora):
            lengths[rate] = steps
            select = few.select(module)
            if best is None or select > best[0]:
                weights = {name: value.clone() for name, value in module.state_dict().items()}
                best = (select, weights, rate, steps, spent)
    if best is None:
        raise ValueError("there was no time for a step")
    _, weights, rate, steps, spent = best
    module = copy.deepcopy(start)
    module.load_state_dict(weights)
    return Tuned(few.scores(module), rate, steps, spent, lengths[rate])


def _trained(
    few: FewItems, start: nn.Module, lessons: Lessons, seconds: float, rate: float, *, lora: bool
) -> Iterator[tuple[int, float, nn.Module]]:
    """Yield steps, seconds and the model, adapters merged, at every checkpoint."""
    torch.manual_seed(few.seed)
    model: Any = copy.deepcopy(start).requires_grad_(not lora)
    if lora:
        model = get_peft_model(
            model, LoraConfig(r=RANK, lora_alpha=RANK, target_modules="all-linear")
        )
    learnt = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=rate, weight_decay=0.0)
    inner = model.get_base_model() if lora else model
    spent = 0.0
    for step, parts in enumerate(lessons.losses(inner, Random(few.seed)), start=1):
        began = few.suite.now()
        for loss in parts:
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        spent += few.suite.now() - began
        if step in CHECKPOINTS or spent >= seconds:
            yield step, spent, copy.deepcopy(model).merge_and_unload() if lora else model
        if spent >= seconds or step >= CHECKPOINTS[-1]:
            return


def _predicted(module: Any, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
    """Return logits and ids of the answers' tokens, `[predicted, vocabulary]` and `[predicted]`."""
    tokens = batch.tokens.to(module.device)
    hidden = module.model(input_ids=tokens, use_cache=False).last_hidden_state
    logits = module.lm_head(hidden[batch.row, batch.position]).float()
    return logits, tokens[batch.row, batch.position + 1]


def _endless(positions: Sequence[int], rng: Random) -> Iterator[int]:
    """Yield positions without end, in a new order each time round."""
    return itertools.chain.from_iterable(
        rng.sample(positions, len(positions)) for _ in itertools.count()
    )
