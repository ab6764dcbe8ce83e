"""The loss on chosen items, in passes small enough to be differentiated; tokenised once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from evomerge.candidate.trial import Split
from evomerge.errors import TaskError
from evomerge.inference.encoding import Encoder
from evomerge.inference.engine import Engine
from evomerge.inference.loss import Question, item_losses
from evomerge.inference.preambles import common_length
from evomerge.scoring.tokenised import TokenisedLeaf
from evomerge.tasks.items import Items
from evomerge.tasks.rendering import Leaf

_CACHED_SHARE = 8  # a shared token's keys and values take about that part of what a token takes


@dataclass(frozen=True)
class Losses:
    """The loss on chosen items."""

    total: float  # σ share · mean item loss, in nats
    tasks: Mapping[str, float]  # task → mean item loss
    items: int  # how many items were read


@dataclass(frozen=True)
class _Chosen:
    task: str
    question: Question
    weight: float  # of the item's loss in the total


class GoldLoss:
    """The loss of modules on any items; a `Scorer` makes it.

    Args:
        items: What there is to score.
        engine: Module → engine.
        tokenised: Encoder and leaf → its documents, tokenised.
    """

    def __init__(
        self,
        items: Items,
        engine: Callable[[nn.Module], Engine],
        tokenised: Callable[[Encoder, Leaf], TokenisedLeaf],
    ) -> None:
        self._items, self._engine, self._tokenised = items, engine, tokenised
        self._questions: dict[tuple[Encoder, str, Split], list[Question | None]] = {}

    def recompute(self, module: nn.Module) -> bool:
        """Whether memory asks for a module's layers to be recomputed in backward passes."""
        return self._engine(module).room.recompute

    def run(
        self,
        module: nn.Module,
        chosen: Mapping[str, Sequence[int]],
        shares: Mapping[str, float],
        differentiate: Callable[[Tensor], object] = torch.Tensor.backward,
        *,
        split: Split = "search",
    ) -> Losses:
        """Compute Σ_task share · mean of its chosen items' losses, in parts of whole items.

        Args:
            module: As it is now; its layers are recomputed in backward passes where `recompute` says so.
            chosen: Requested task or group → positions among its items with a gold answer. A task
                without any is left out.
            shares: Requested task or group → its share.
            differentiate: Called with each part of the total, which has a graph where the caller's mode
                allows it. One part's graph is gone before the next is made.
            split: Whose items.

        Raises:
            TaskError: An unknown task or position.
            NotFinite: The logits are NaN or infinite.
        """
        engine = self._engine(module)
        picked = {
            task: list(self._pick(engine.encoder, task, split, positions))
            for task, positions in chosen.items()
        }
        everything = [
            _Chosen(task, question, shares[task] / len(questions))
            for task, questions in picked.items()
            for question in questions
        ]
        sums = {task: 0.0 for task, questions in picked.items() if questions}
        total = 0.0
        for part in _parts(everything, engine):
            losses = item_losses(_sums(part, engine), [each.question for each in part])
            weights = torch.tensor([each.weight for each in part], dtype=losses.dtype)
            loss = losses @ weights.to(losses.device)
            differentiate(loss)
            total += float(loss.detach())
            for each, value in zip(part, losses.detach().tolist(), strict=True):
                sums[each.task] += value
        means = {task: value / len(picked[task]) for task, value in sums.items()}
        return Losses(total, means, len(everything))

    def _pick(
        self, encoder: Encoder, task: str, split: Split, positions: Sequence[int]
    ) -> Iterator[Question]:
        if not positions:
            return
        key = encoder, task, split
        if key not in self._questions:
            self._questions[key] = [
                question
                for leaf in self._items.leaves(task, split)
                for question in self._tokenised(encoder, leaf).questions
            ]
        questions = self._questions[key]
        for position in positions:
            if not 0 <= position < len(questions):
                raise TaskError(
                    f'task "{task}" has {len(questions)} items with a gold answer for {split}; there is '
                    f"no item {position}"
                )
            question = questions[position]
            if question is not None:
                yield question


def gold_count(items: Items, task: str, split: Split = "search") -> int:
    """Return how many of a task's items have a gold answer, without which an item has no loss."""
    return sum(gold is not None for leaf in items.leaves(task, split) for gold in leaf.golds)


def _parts(chosen: Sequence[_Chosen], engine: Engine) -> Iterator[list[_Chosen]]:
    """Cut items into parts that fit; what begins alike stands together."""
    most_tokens, most_reads = engine.room.gradients, engine.most_reads
    part: list[_Chosen] = []
    tokens = reads = 0
    for each in sorted(chosen, key=lambda each: each.question.readings[0].tokens):
        question = each.question
        cost = question.tokens
        if part and not engine.room.recompute:
            before = part[-1].question.readings[0].tokens
            shared = common_length(before, question.readings[0].tokens)
            cost -= shared - shared // _CACHED_SHARE
        if part and (tokens + cost > most_tokens or reads + question.reads > most_reads):
            yield part
            part, tokens, reads, cost = [], 0, 0, question.tokens
        part.append(each)
        tokens, reads = tokens + cost, reads + question.reads
    if part:
        yield part


def _sums(part: Sequence[_Chosen], engine: Engine) -> Tensor:
    """Return the log-likelihood of every reading, question by question."""
    readings = [
        replace(reading, group=number)
        for number, each in enumerate(part)
        for reading in each.question.readings
    ]
    batches = engine.plan(
        readings,
        batch_tokens=engine.room.gradient_pass,
        preambles=not engine.room.recompute,
    )
    return engine.read(batches, len(readings))[0]
