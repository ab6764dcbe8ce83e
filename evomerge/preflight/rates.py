"""How long evaluations take: a small model's are tried out, of a large one products of its size are timed.

Tried out is what a worker does: naive merges are written into the live model and scored on search items,
a second one with the first one's answers as drafts, as all candidates but the first have them; one
gradient is taken; and where another metric is reported, it is scored once. Of many items a part is
taken, so that all of it takes some seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from evomerge.candidate.trial import Split
from evomerge.errors import EvomergeError
from evomerge.inference import Collapsed, NotFinite
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
        first: To score what is searched, without drafts, as for parents and naive merges.
        later: The same of most candidates, whose answers are near to earlier ones.
        reported: To score searched and reported metrics.
        gradient: To read an item with a gold answer forward and backward.
        tried: Whether evaluations were tried out.
    """

    first: float
    later: float
    reported: float
    gradient: float
    tried: bool


def rates(ready: Preflight, device: str) -> Rates:
    """Find out how long evaluations take.

    Args:
        ready: The checked campaign.
        device: Where the workers compute.
    """
    campaign, family = ready.campaign, ready.family
    threads = max(1, int(campaign.workers.cpus))
    with _threads(threads):
        rate = _operations_per_second(ready, device)
        searched = _OVERHEAD * 2 * family.parameters * _tokens_of_an_item(ready, reported=False)
        reported = _OVERHEAD * 2 * family.parameters * _tokens_of_an_item(ready, reported=True)
        guess = Rates(
            first=searched / rate,
            later=searched / rate,
            reported=reported / rate,
            gradient=_GRADIENT * searched / rate / len(campaign.objectives),
            tried=False,
        )
        size = sum(
            header.nbytes for one in family.checkpoints.values() for header in one.tensors.values()
        )
        if campaign.scorer.backend != "resident" or size > LARGEST_TRIED:
            return guess
        try:
            return _tried(ready, device, guess)
        except (EvomergeError, NotFinite, Collapsed, RuntimeError):
            return guess  # what a worker would record as a failure


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
    batch_tokens = campaign.workers.batch_tokens
    scorer = Scorer(model.tokenizer, items, batch_tokens=batch_tokens)
    scorer.engine(model.module)  # while its weights are the base's
    merges = _naive_merges(ready)
    searched = {goal.task: (goal.metric,) for goal in campaign.objectives}
    reported = {
        goal.task: tuple(dict.fromkeys((goal.metric, goal.report))) for goal in campaign.objectives
    }

    def evaluate(
        merge: Baseline, split: Split, metrics: Mapping[str, tuple[str, ...]], count: int
    ) -> None:
        block = {task: tuple(range(min(count, len(items.ids(task, split))))) for task in metrics}
        model.write(merge.candidate)
        for _ in scorer.score_in_blocks(model.module, split, metrics, [block]):
            pass

    few = _part(campaign.items.search, guess.first)

    def timed(merge: Baseline) -> float:
        return _seconds(lambda: evaluate(merge, "search", searched, few)) / few

    timed(merges[0])  # tokenises, and leaves drafts
    first = timed(merges[1])
    later = min(first, timed(merges[2]))
    seen = first
    if reported != searched:
        some = _part(campaign.items.select, guess.reported)
        seen = _seconds(lambda: evaluate(merges[1], "select", reported, some)) / some
    return Rates(first, later, seen, _gradient(ready, model, scorer, merges[2], guess), True)


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


def _naive_merges(ready: Preflight) -> list[Baseline]:
    """Return the base, the uniform average, and task arithmetic."""
    known = ready.space.baselines()
    return [one for one in known if one.role == "base"] + [
        one for one in known if one.role == "baseline"
    ]


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
    import torch

    from evomerge.merge.devices import torch_dtype

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


@contextmanager
def _threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
