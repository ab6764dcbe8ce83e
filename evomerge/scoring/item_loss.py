"""The loss on chosen items, in passes small enough to be differentiated; tokenised once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor, nn

from evomerge.candidate.trial import Split, Target, Targets
from evomerge.errors import TaskError
from evomerge.inference.divergence import Divergence, Listener, joined, told
from evomerge.inference.encoding import Encoder
from evomerge.inference.engine import Engine
from evomerge.inference.loss import Question, item_divergences, item_losses
from evomerge.inference.preambles import common_length
from evomerge.scoring.tokenised import TokenisedLeaf
from evomerge.tasks.items import Items
from evomerge.tasks.metrics import TEACHER_DIVERGENCE
from evomerge.tasks.rendering import Leaf

_CACHED_SHARE = 8  # a shared token's keys and values take about that part of what a token takes

TEMPERATURE = 2.0
"""Of the divergence that is descended: with 64 items a task of the zoo, merges were 0.23 nats an item from
the teachers on other items, 0.28 at temperature 1; 3 and 4 were worse."""


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
    target: Target | None
    gold_share: float

    @property
    def reads(self) -> int:
        """How many rows of logits it takes: what a teacher leaves out is added up in a copy."""
        copied = self.target is not None and not self.question.right
        return self.question.reads * (1 + copied)


class ItemLoss:
    """The loss of modules on any items, from gold answers and from teachers; a `Scorer` makes it.

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
        targets: Mapping[str, Targets] = MappingProxyType({}),
        gold_shares: Mapping[str, float] = MappingProxyType({}),
    ) -> Losses:
        """Compute Σ_task share · mean of its chosen items' losses, in parts of whole items.

        The loss of an item with a target is `gold_share` · its gold answer's + (1 - `gold_share`) · the
        divergence from the teacher; that of another item is its gold answer's.

        Args:
            module: As it is now; its layers are recomputed in backward passes where `recompute` says so.
            chosen: Requested task or group → positions among its items with a gold answer. A task
                without any is left out.
            shares: Requested task or group → its share.
            differentiate: Called with each part of the total, which has a graph where the caller's mode
                allows it. One part's graph is gone before the next is made.
            split: Whose items.
            targets: Requested task or group → one for each of its chosen items.
            gold_shares: Requested task or group → its gold share; default 0.

        Raises:
            TaskError: An unknown task or position, or targets that are not of these items.
            NotFinite: The logits are NaN or infinite.
        """
        engine = self._engine(module)
        picked = {
            task: self._pick(engine, task, split, positions, targets.get(task))
            for task, positions in chosen.items()
            if positions
        }
        everything = [
            _Chosen(task, question, shares[task] / len(found), target, gold_shares.get(task, 0.0))
            for task, found in picked.items()
            for question, target in found
        ]
        sums = {task: 0.0 for task, found in picked.items() if found}
        total = 0.0
        for part in _parts(everything, engine):
            losses = _losses(part, engine)
            weights = torch.tensor([each.weight for each in part], dtype=losses.dtype)
            loss = losses @ weights.to(losses.device)
            differentiate(loss)
            total += float(loss.detach())
            for each, value in zip(part, losses.detach().tolist(), strict=True):
                sums[each.task] += value
        means = {task: value / len(picked[task]) for task, value in sums.items()}
        return Losses(total, means, len(everything))

    def targets(
        self, module: nn.Module, task: str, split: Split = "search", *, mistaken: bool = False
    ) -> tuple[Target | None, ...]:
        """Read the items of a task that have a gold answer once, and take down what the module says.

        Args:
            module: The teacher, as it is now.
            task: Requested task or group.
            split: Whose items.
            mistaken: Also where the teacher is wrong: it does not write the gold answer, or a wrong choice
                is its likeliest.

        Returns:
            One an item with a gold answer; None where the answer has no tokens, or the teacher is wrong.

        Raises:
            TaskError: An unknown task, or one without an answer that has tokens.
            NotFinite: The logits are NaN or infinite.
        """
        engine = self._engine(module)
        questions = self._questions_of(engine.encoder, task, split)
        asked = [question for question in questions if question is not None]
        if not asked:
            raise TaskError(
                f'task "{task}" has no gold answer with tokens for {split}: there is nothing that a '
                "teacher could tell"
            )
        readings = [reading for question in asked for reading in question.readings]
        listener = Listener([not each.right for each in asked for _ in each.readings])
        with torch.inference_mode():
            sums, greedy = engine.read(engine.plan(readings), len(readings), listener)
        found = zip(listener.targets, sums, greedy.tolist(), strict=True)
        return tuple(
            None
            if question is None
            else _target(question, [next(found) for _ in question.readings], mistaken)
            for question in questions
        )

    def checked_targets(
        self, engine: Engine, task: str, split: Split, targets: Targets | None
    ) -> list[Target]:
        """Return targets that hold one for each item with a gold answer.

        Raises:
            TaskError: They do not, or are not of these items.
        """
        if targets is None:
            raise TaskError(
                f'task "{task}": {TEACHER_DIVERGENCE} needs what a teacher says of its {split} items; '
                "none came with the job"
            )
        positions = range(len(self._questions_of(engine.encoder, task, split)))
        found = [each for _, each in self._pick(engine, task, split, positions, targets) if each]
        if len(found) < len(positions):
            raise TaskError(
                f'task "{task}": {TEACHER_DIVERGENCE} needs what a teacher says of every item, and of '
                f"{len(positions) - len(found)} of {len(positions)} {split} items it says nothing"
            )
        return found

    def _pick(
        self,
        engine: Engine,
        task: str,
        split: Split,
        positions: Sequence[int],
        targets: Targets | None,
    ) -> list[tuple[Question, Target | None]]:
        questions = self._questions_of(engine.encoder, task, split)
        targets = [None] * len(positions) if targets is None else targets
        if len(targets) != len(positions):
            raise TaskError(
                f'task "{task}": {len(targets)} targets for {len(positions)} items; give one for each'
            )
        picked = []
        for position, target in zip(positions, targets, strict=True):
            if not 0 <= position < len(questions):
                raise TaskError(
                    f'task "{task}" has {len(questions)} items with a gold answer for {split}; there is '
                    f"no item {position}"
                )
            question = questions[position]
            if question is not None:
                if target is not None:
                    check_target(
                        target, question, engine.vocabulary, f'task "{task}", item {position}'
                    )
                picked.append((question, target))
        return picked

    def _questions_of(self, encoder: Encoder, task: str, split: Split) -> list[Question | None]:
        key = encoder, task, split
        if key not in self._questions:
            self._questions[key] = [
                question
                for leaf in self._items.leaves(task, split)
                for question in self._tokenised(encoder, leaf).questions
            ]
        return self._questions[key]


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
        if part and (tokens + cost > most_tokens or reads + each.reads > most_reads):
            yield part
            part, tokens, reads, cost = [], 0, 0, question.tokens
        part.append(each)
        tokens, reads = tokens + cost, reads + each.reads
    if part:
        yield part


def _losses(part: Sequence[_Chosen], engine: Engine) -> Tensor:
    """Return the loss of each item."""
    questions, targets = [each.question for each in part], [each.target for each in part]
    readings = [
        replace(reading, group=number)
        for number, question in enumerate(questions)
        for reading in question.readings
    ]
    batches = engine.plan(
        readings,
        batch_tokens=engine.room.gradient_pass,
        preambles=not engine.room.recompute,
    )
    divergence = Divergence(
        [target for each in part for target in each.question.by_reading(each.target)],
        TEMPERATURE,
    )
    has_teacher = any(target is not None for target in targets)
    sums, _ = engine.read(batches, len(readings), divergence if has_teacher else None)
    golds = item_losses(sums, questions)
    if not has_teacher:
        return golds
    taught = [0.0 if each.target is None else 1 - each.gold_share for each in part]
    found = item_divergences(sums, divergence.sums(sums), questions, targets)
    return golds.lerp(found, golds.new_tensor(taught))


def _target(
    question: Question, found: Sequence[tuple[Target | None, Tensor, bool]], mistaken: bool
) -> Target | None:
    """Return what a teacher says of an item, from target, log-likelihood and greediness of each reading."""
    said = [target for target, _, _ in found if target is not None]
    if question.right:
        sums = torch.stack([value for _, value, _ in found])
        is_right = question.right[int(sums.argmax())]
        target = told(sums.log_softmax(0)[None], whole=len(sums))
    else:
        is_right = not question.is_answer or all(greedy for _, _, greedy in found)
        target = joined(said)
    return target if is_right or mistaken else None


def check_target(target: Target, question: Question, vocabulary: int, where: str) -> None:
    """Raise TaskError unless a target is of an item's scored positions."""
    rows, columns = target.logprobs.shape
    outcomes = len(question.right) or vocabulary
    if rows != question.positions or (target.tokens is None and columns != outcomes):
        raise TaskError(
            f"{where}: the target is of {rows} positions with {columns} outcomes, and the item has "
            f"{question.positions} with {outcomes}; take the targets again"
        )
