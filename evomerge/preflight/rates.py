"""How long evaluations take: products of the model's size are timed, and the tokens of the items counted.

An evaluation takes 2.5 times its bare matrix products with large models, and 4 to 5 times with the zoo's; a
number between them is good to about a factor of two.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from evomerge.merge.devices import torch_dtype
from evomerge.preflight.check import Preflight

GENERATED_TOKENS = 24
"""A guess for an answer that is generated."""

_OVERHEAD = (
    3.5  # time of an evaluation over bare matrix products: attention, norms, metrics, Python
)
_GRADIENT = 2.2  # evaluations without generation that one gradient is worth
_TOKENS_TIMED = 1024


@dataclass(frozen=True)
class Rates:
    """Seconds of one worker: to score one item of every task; all else of one item.

    Attributes:
        searched: To score what is searched.
        reported: To score searched and reported metrics.
        gradient: To read an item with a gold answer forward and backward.
        read: To read an item's prompt.
        written: To write an answer, as long as is guessed.
    """

    searched: float
    reported: float
    gradient: float
    read: float
    written: float


def rates(ready: Preflight, device: str) -> Rates:
    """Estimate how long evaluations take.

    Args:
        ready: The checked campaign.
        device: Where the workers compute.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, int(ready.campaign.workers.cpus)))
    try:
        operations = _operations_per_second(ready, device)
    finally:
        torch.set_num_threads(threads)
    per_token = _OVERHEAD * 2 * ready.family.parameters / operations
    searched = per_token * _tokens_of_an_item(ready, reported=False)
    reported = per_token * _tokens_of_an_item(ready, reported=True)
    tasks = len(ready.campaign.objectives)
    read, written = per_token * _tokens_of_prompts(ready) / tasks, per_token * GENERATED_TOKENS
    return Rates(searched, reported, _GRADIENT * searched / tasks, read, written)


def _tokens_of_prompts(ready: Preflight) -> float:
    """Return the tokens of a prompt of every task."""
    total = 0.0
    for goal in ready.campaign.objectives:
        leaves = ready.items.leaves(goal.task, "search")
        texts = [str(of_item[0].args[0]) for leaf in leaves for of_item in leaf.requests if of_item]
        lengths = [len(ids) for ids in ready.family.tokenizer(texts)["input_ids"]] if texts else []
        total += sum(lengths) / max(1, len(lengths))
    return total


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
