"""How long evaluations take: a small model's are tried out, of a large one products of its size are timed.

Tried out is what a worker does: naive merges are written into the live model and scored on search items, the
second with the first one's answers as drafts, as all candidates but the first have them; one gradient is
taken; and where another metric is reported, it is scored once. Of many items a part is taken, so that all of
it takes some seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from evomerge.candidate.trial import Split
from evomerge.errors import EvomergeError
from evomerge.inference import Collapsed, NotFinite
from evomerge.merge.devices import torch_dtype
from evomerge.merge.live import LiveModel
from evomerge.preflight.check import Preflight
from evomerge.scoring import Scorer, gold_count
from evomerge.space import Baseline

TRIAL_SECONDS = 1.0
"""What one of the evaluations that are tried out may take."""
LARGEST_TRIED = 2**30
"""Bytes of all models; larger ones would have to be read for too long."""
GENERATED_TOKENS = 24
"""A guess for an answer that is generated."""

_OVERHEAD = 2.5  # measured trial time over bare matrix products: attention, norms, metrics, Python
_GRADIENT = 3.1  # forward passes that one gradient is worth
_TOKENS_TIMED = 1024


@dataclass(frozen=True)
class Rates:
    """Seconds of one worker for one item of every task, or, for gradients, for one item.

    Attributes:
        searched: To score what is searched.
        reported: To score searched and reported metrics.
        gradient: To read an item with a gold answer forward and backward.
        tried: Whether evaluations were tried out.
    """

    searched: float
    reported: float
    gradient: float
    tried: bool


def rates(ready: Preflight, device: str) -> Rates:
    """Find out how long evaluations take.

    Args:
        ready: The checked campaign.
        device: Where the workers compute.
    """
    checkpoints = ready.family.checkpoints.values()
    size = sum(header.nbytes for one in checkpoints for header in one.tensors.values())
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, int(ready.campaign.workers.cpus)))
    try:
        guess = _guess(ready, device)
        if ready.campaign.scorer.backend != "resident" or size > LARGEST_TRIED:
            return guess
        try:
            return _tried(ready, device, guess)
        except (EvomergeError, NotFinite, Collapsed, RuntimeError):
            return guess  # what a worker would record as a failure
    finally:
        torch.set_num_threads(threads)


def _guess(ready: Preflight, device: str) -> Rates:
    per_token = _OVERHEAD * 2 * ready.family.parameters / _operations_per_second(ready, device)
    searched = per_token * _tokens_of_an_item(ready, reported=False)
    reported = per_token * _tokens_of_an_item(ready, reported=True)
    gradient = _GRADIENT * searched / len(ready.campaign.objectives)
    return Rates(searched, reported, gradient, tried=False)


def _tried(ready: Preflight, device: str, guess: Rates) -> Rates:
    campaign, items = ready.campaign, ready.items
    model = LiveModel(
        tuple(ready.family.checkpoints),
        dtype=campaign.models.dtype,
        device=device,
        trust_remote_code=campaign.models.trust_remote_code,
        allow_pickle=campaign.models.allow_pickle,
        vocabulary=ready.family.family.vocabulary,
    )
    scorer = Scorer(items, batch_tokens=campaign.workers.batch_tokens)
    scorer.engine(model.module)  # while its weights are the base's
    baselines = ready.space.baselines()
    first = next(one for one in baselines if one.role == "base")
    last = [one for one in baselines if one.role == "baseline"][1]  # task arithmetic
    searched = {goal.task: (goal.metric,) for goal in campaign.objectives}
    reported = {
        goal.task: tuple(dict.fromkeys((goal.metric, goal.report))) for goal in campaign.objectives
    }

    def timed(
        merge: Baseline, split: Split, metrics: Mapping[str, tuple[str, ...]], seconds: float
    ) -> float:
        count = _part(getattr(campaign.items, split), seconds)
        block = {task: tuple(range(min(count, len(items.ids(task, split))))) for task in metrics}

        def evaluate() -> None:
            model.write(merge.candidate)
            for _ in scorer.score_in_blocks(model.module, split, metrics, [block]):
                pass

        return _seconds(evaluate) / count

    timed(first, "search", searched, guess.searched)  # tokenises, and leaves drafts
    each = timed(last, "search", searched, guess.searched)
    seen = each if reported == searched else timed(last, "select", reported, guess.reported)
    return Rates(each, seen, _gradient(ready, model, scorer, last, guess), tried=True)


def _gradient(
    ready: Preflight, model: LiveModel, scorer: Scorer, merge: Baseline, guess: Rates
) -> float:
    campaign = ready.campaign
    golds = {goal.task: gold_count(ready.items, goal.task) for goal in campaign.objectives}
    if campaign.search.sampler != "gradient" or not any(golds.values()):
        return 0.0
    loss = scorer.gold_loss
    most = _part(campaign.search.gradient_items, guess.gradient * len(golds))
    chosen = {task: tuple(range(min(most, count))) for task, count in golds.items()}

    def take() -> None:
        with model.gradients(merge.candidate, recompute=loss.recompute(model.module)):
            loss.run(model.module, chosen, dict.fromkeys(chosen, 1.0))

    take()
    return _seconds(take) / sum(map(len, chosen.values()))


def _part(items: int, seconds_each: float) -> int:
    """Return how many of some items are tried out."""
    return max(1, min(items, int(TRIAL_SECONDS / max(seconds_each, 1e-9))))


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _tokens_of_an_item(ready: Preflight, *, reported: bool) -> float:
    """Return the tokens of an item of every task: its prompts, and a guess of what is generated."""
    total = 0.0
    tokenizer = ready.family.tokenizer
    for goal in ready.campaign.objectives:
        metrics = (goal.metric, goal.report) if reported else (goal.metric,)
        generated = not all(metric.startswith("gold_") for metric in metrics)
        for leaf in ready.items.leaves(goal.task, "search"):
            requests = [request for of_item in leaf.requests for request in of_item]
            texts = [
                " ".join(part for part in one.args if isinstance(part, str)) for one in requests
            ]
            writes = generated and leaf.task.OUTPUT_TYPE == "generate_until"
            lengths = [len(ids) for ids in tokenizer(texts)["input_ids"]]
            tokens = sum(lengths) + GENERATED_TOKENS * len(requests) * writes
            total += tokens / max(1, len(ready.items.ids(goal.task, "search")))
    return total


def _operations_per_second(ready: Preflight, device: str) -> float:
    """Time a product as wide as the model's, in its dtype, on the device."""
    hidden = int(ready.family.base.config.get_text_config().hidden_size)
    dtype = torch_dtype(ready.campaign.models.dtype)
    left = torch.randn(_TOKENS_TIMED, hidden).to(device, dtype)
    right = torch.randn(hidden, 4 * hidden).to(device, dtype)

    def product() -> None:
        left @ right
        if device != "cpu":
            torch.cuda.synchronize()

    product()
    start, rounds = time.perf_counter(), 0
    while time.perf_counter() - start < 0.2:
        product()
        rounds += 1
    operations = rounds * 2 * _TOKENS_TIMED * hidden * 4 * hidden
    return operations / (time.perf_counter() - start)
