"""Plain fine-tuning of a merge on a search's own items: what as much time buys without merging."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

import torch

from benchmarks.speed._zoo_scorer import ZooScorer
from evomerge import zoo
from evomerge.candidate import Recipe
from evomerge.zoo.training import answer_loss, batches

RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3)
BATCH = 16
SHARES = (0.125, 0.25, 0.5, 1.0)
"""Of the time; after each, the weights are scored on `select`, so that over-fitting does not count."""


@dataclass(frozen=True)
class Tuned:
    """A model that was trained.

    Attributes:
        rate: AdamW's learning rate.
        seconds: Of training.
        steps: Of AdamW.
        select: Score by which it was chosen.
        holdout: Score of the chosen one.
    """

    rate: float
    seconds: float
    steps: int
    select: float
    holdout: float


def fine_tune(
    scorer: ZooScorer,
    start: Recipe,
    items: Sequence[zoo.Item],
    seconds: float,
    *,
    rates: Sequence[float] = RATES,
    seed: int = 0,
) -> Tuned:
    """Train all weights on the answers of items, at several rates; choose rate and length on `select`.

    Args:
        scorer: Scores what comes of it.
        start: Where training starts.
        items: What the search sees.
        seconds: Of training at each rate.
        rates: Constant learning rates of AdamW.
        seed: Of the batches.
    """
    best: tuple[float, dict[str, torch.Tensor], float, float, int] | None = None
    for rate in rates:
        scorer.live.write(start)
        for spent, steps, weights in _trained(scorer, items, seconds, rate, seed):
            select = scorer.score_weights(weights, "select")
            if best is None or select > best[0]:
                best = (select, weights, rate, spent, steps)
    if best is None:
        raise ValueError("no learning rate was given")
    select, weights, rate, spent, steps = best
    return Tuned(rate, spent, steps, select, scorer.score_weights(weights, "holdout"))


def _trained(
    scorer: ZooScorer, items: Sequence[zoo.Item], seconds: float, rate: float, seed: int
) -> Iterator[tuple[float, int, dict[str, torch.Tensor]]]:
    """Yield seconds, steps and weights after each share of the time."""
    model = copy.deepcopy(scorer.live.module).float().requires_grad_(True).train()
    rng = Random(seed)
    drawn = batches(_texts(items, rng), scorer.live.tokenizer, BATCH, rng)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    spent, steps = 0.0, 0
    for share in SHARES:
        start = time.monotonic()
        while spent + time.monotonic() - start < share * seconds:
            answer_loss(model, next(drawn)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            steps += 1
        spent += time.monotonic() - start
        yield spent, steps, {name: value.clone() for name, value in model.state_dict().items()}


def _texts(items: Sequence[zoo.Item], rng: Random) -> Iterator[tuple[str, str]]:
    """Yield prompts and answers without end, in a new order each time round."""
    pairs = [(item.prompt, item.answer) for item in items]
    return itertools.chain.from_iterable(rng.sample(pairs, len(pairs)) for _ in itertools.count())
