"""A module's scores on a split: tokenised and planned once, then forward passes and metrics only."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, cast
from weakref import WeakKeyDictionary

import torch
from torch import nn

from evomerge.candidate.trial import Split, Target, Targets, TaskScores
from evomerge.inference.batches import Batch
from evomerge.inference.divergence import Divergence
from evomerge.inference.drafts import Drafts
from evomerge.inference.encoding import Encoder, Reading
from evomerge.inference.engine import Engine
from evomerge.inference.generation import Prompt
from evomerge.inference.loss import Question, item_divergences
from evomerge.scoring.item_loss import ItemLoss
from evomerge.scoring.tokenised import TokenisedLeaf, generation_prompt
from evomerge.tasks.items import Items
from evomerge.tasks.metrics import GOLD_LOGLIKELIHOOD, GOLD_PROBABILITY, TEACHER_DIVERGENCE
from evomerge.tasks.rendering import Leaf
from evomerge.tasks.scores import Asked, LeafValues, assemble


@dataclass(frozen=True)
class Scored:
    """Scores on one split."""

    tasks: Mapping[str, TaskScores]  # requested task or group → scores
    subtasks: Mapping[str, TaskScores]  # task of a requested group → scores
    generated_tokens: int  # tokens that were generated
    items: int  # items that were scored


class Scorer:
    """Scores modules on the same items: causal language models of transformers, in eval mode.

    Items are tokenised once for all modules that read alike. What is found out about a module and
    planned for it is kept as long as it lives, whatever its weights become meanwhile.

    Args:
        items: What to score them on; their tokenizer is the modules'.
        batch_tokens: Most tokens of one forward pass; `auto`: sized from the machine and the model.
        memory: Bytes of the module's device that passes may take; None: half of what is there.

    Attributes:
        loss: Differentiable losses of modules on the same items, and what teachers say of them.
    """

    takes: Literal["module", "folder"] = "module"
    races = True
    gradients = True

    def __init__(
        self,
        items: Items,
        *,
        batch_tokens: int | Literal["auto"] = "auto",
        memory: int | None = None,
    ) -> None:
        self._items = items
        self._batch_tokens, self._memory = batch_tokens, memory
        self._engines: WeakKeyDictionary[nn.Module, Engine] = WeakKeyDictionary()
        self._encoders: dict[Hashable, Encoder] = {}
        self._tokenised: dict[tuple[Encoder, int], TokenisedLeaf] = {}
        self._drafts = Drafts()  # of earlier candidates, whatever module wrote them
        self.loss = ItemLoss(items, self.engine, self.tokenised)

    def check(self, metrics: Mapping[str, tuple[str, ...]]) -> None:
        """Raise as `score` does where it cannot give these metrics; no model is needed."""
        self._asked(self._items.splits[0], metrics)

    def engine(self, module: nn.Module) -> Engine:
        """Return what a module's passes need, made at its first use; best while its weights are sound.

        Raises:
            ModelError: The module is recurrent.
            NotFinite: Its logits are NaN.
        """
        if module not in self._engines:
            engine = Engine(
                module, self._items.tokenizer, self._batch_tokens, self._memory, self._drafts
            )
            engine.encoder = self._encoders.setdefault(engine.encoder.key, engine.encoder)
            self._engines[module] = engine
        return self._engines[module]

    def tokenised(self, encoder: Encoder, leaf: Leaf) -> TokenisedLeaf:
        """Return the documents of a leaf as an encoder's modules read them."""
        key = encoder, id(leaf)
        if key not in self._tokenised:
            self._tokenised[key] = TokenisedLeaf(leaf, encoder)
        return self._tokenised[key]

    def score(
        self,
        module: nn.Module,
        split: Split,
        metrics: Mapping[str, tuple[str, ...] | None],
        *,
        bootstrap_iterations: int = 0,
        targets: Mapping[str, Targets] = MappingProxyType({}),
    ) -> Scored:
        """Score a module as it is now.

        Only what the metrics need is computed: `gold_*` metrics never generate.

        Args:
            module: What to score.
            split: Which items.
            metrics: Requested task or group → its metrics; None: every metric, as `lm_eval` gives them,
                and ours, over the items that have a gold answer.
            bootstrap_iterations: Draws for standard errors without a closed form; 0: they have none.
            targets: Requested task or group → what its teacher says of each item, for
                `teacher_divergence`.

        Raises:
            TaskError: An unknown task, split or metric, an item that cannot be scored, or a teacher that is
                missing or says nothing of an item.
            ModelError: The module is recurrent.
            NotFinite: The logits are NaN or infinite.
            Collapsed: The module writes the same token over and over, whatever it is asked.
        """
        asked = self._asked(split, metrics)
        whole = {task: range(len(self._items.ids(task, split))) for task in asked}
        (scored,) = self._scored(
            self.engine(module), split, asked, targets, [whole], bootstrap_iterations
        )
        return scored

    def score_in_blocks(
        self,
        module: nn.Module,
        split: Split,
        metrics: Mapping[str, tuple[str, ...]],
        blocks: Sequence[Mapping[str, Sequence[int]]],
        *,
        targets: Mapping[str, Targets] = MappingProxyType({}),
    ) -> Iterator[Scored]:
        """Score a module block by block, for a caller that may stop in between. Raises as `score` does.

        Args:
            module: What to score.
            split: Which items.
            metrics: Requested task or group → its metrics.
            blocks: Task → which of its items, by position among `Items.ids`, ascending; no item twice.
            targets: As `score` takes them.

        Yields:
            The scores on all items so far, in the order of `Items.ids`, aggregated as if they were
            scored in one go; a task without any is left out. Tokens and items count all blocks so far.
        """
        asked = self._asked(split, metrics)
        yield from self._scored(self.engine(module), split, asked, targets, blocks, 0)

    def write(
        self, module: nn.Module, prompts: Sequence[str], max_tokens: int, until: Sequence[str]
    ) -> list[str]:
        """Let a module continue prompts greedily; each text is what follows its prompt.

        Args:
            module: What writes.
            prompts: As it reads them.
            max_tokens: Most tokens of a text.
            until: Texts at which one ends, and which it is cut at.

        Raises:
            TaskError: `max_tokens` is more than the context holds.
            ModelError: The module is recurrent.
            NotFinite: The logits are NaN or infinite.
            Collapsed: The module writes the same token over and over, whatever it is asked.
        """
        engine = self.engine(module)
        encoder, options = engine.encoder, {"until": list(until), "max_gen_toks": max_tokens}
        asked = [
            generation_prompt("prompts", tokens, options, encoder)
            for tokens in encoder.prompts(prompts)
        ]
        with torch.inference_mode():
            written = engine.write(asked)
        return [
            encoder.stopping.text(tokens, prompt.rule, behind=prompt.tokens)
            for tokens, prompt in zip(written, asked, strict=True)
        ]

    def forget_drafts(self) -> None:
        """Forget what earlier candidates wrote; scores stay the same, the next one takes longer."""
        self._drafts.clear()

    def _asked(
        self, split: Split, metrics: Mapping[str, tuple[str, ...] | None]
    ) -> dict[str, Asked]:
        return {task: Asked.of(self._items, task, split, names) for task, names in metrics.items()}

    def _scored(
        self,
        engine: Engine,
        split: Split,
        asked: Mapping[str, Asked],
        targets: Mapping[str, Targets],
        blocks: Sequence[Mapping[str, Sequence[int]]],
        iterations: int,
    ) -> Iterator[Scored]:
        found = {
            task: [LeafValues(leaf, metrics) for leaf in self._items.leaves(task, split)]
            for task, metrics in asked.items()
        }
        said = {
            task: self.loss.checked_targets(engine, task, split, targets.get(task))
            for task, metrics in asked.items()
            if TEACHER_DIVERGENCE in (metrics.golds or ())
        }
        generated = items = 0
        for block in blocks:
            parts = [
                _Part(
                    self.tokenised(engine.encoder, values.leaf),
                    values,
                    positions,
                    said.get(task, ())[first : first + len(values.leaf.docs)],
                )
                for task, leaves in found.items()
                for values, positions, first in _shared_out(leaves, block.get(task, ()))
                if positions
            ]
            generated += _answer(engine, parts)
            items += sum(len(part.positions) for part in parts)
            yield Scored(*assemble(self._items, asked, found, iterations), generated, items)


@dataclass(frozen=True)
class _Part:
    """Documents of one leaf that are scored together with others'."""

    tokenised: TokenisedLeaf
    values: LeafValues
    positions: Sequence[int]
    targets: Sequence[Target]  # one a document where a teacher is asked for, else none

    @property
    def reads_requests(self) -> bool:
        choices = GOLD_PROBABILITY in self.values.golds or TEACHER_DIVERGENCE in self.values.golds
        needed = self.values.requests or choices
        return needed and not self.tokenised.writes

    @property
    def key(self) -> Hashable:
        """Equal for parts that read and write the same."""
        values = self.values
        return (id(values.leaf), values.requests, bool(values.golds), self.reads_requests)

    def prompts(self) -> list[Prompt]:
        if not (self.values.requests and self.tokenised.writes):
            return []
        return [self.tokenised.prompts[position] for position in self.positions]

    def readings(self, position: int) -> list[Reading]:
        """Return what is read of one document."""
        if self.reads_requests:
            return [each for of_request in self.tokenised.requests[position] for each in of_request]
        return list(self.tokenised.golds[position]) if self.values.golds else []

    def taught(self) -> list[tuple[Question, Target]]:
        """Return the documents' questions with what a teacher says of them; empty without a teacher."""
        if not self.targets:
            return []
        found = [(self.tokenised.questions[n], self.targets[n]) for n in self.positions]
        return [(question, target) for question, target in found if question is not None]


def _shared_out(
    leaves: Sequence[LeafValues], positions: Sequence[int]
) -> Iterator[tuple[LeafValues, Sequence[int], int]]:
    """Share a task's positions out among its leaves; beside each, at which position it begins."""
    first = 0
    for values in leaves:
        stop = first + len(values.leaf.docs)
        yield values, [each - first for each in positions if first <= each < stop], first
        first = stop


def _answer(engine: Engine, parts: Sequence[_Part]) -> int:
    """Score the documents of all parts in one go; return how many tokens were generated."""
    readings, prompts, batches = _planned(engine, parts)
    told = {
        id(reading): target
        for part in parts
        for question, whole in part.taught()
        for reading, target in zip(question.readings, question.by_reading(whole), strict=True)
    }
    divergence = Divergence([told.get(id(reading)) for reading in readings])
    with torch.inference_mode():
        sums, greedy = engine.read(batches, len(readings), divergence if told else None)
        written = engine.write(prompts)
    stopping = engine.encoder.stopping
    texts = (
        stopping.text(each, prompt.rule) for each, prompt in zip(written, prompts, strict=True)
    )
    found = zip(sums.tolist(), greedy.tolist(), divergence.sums(sums).tolist(), strict=True)
    answers = {id(reading): answer for reading, answer in zip(readings, found, strict=True)}
    for part in parts:
        cut = [any(each.truncated for each in part.readings(n)) for n in part.positions]
        own = part.prompts()
        for index, prompt in enumerate(own):
            cut[index] |= prompt.truncated
        responses = [[[next(texts)]] for _ in own] or _responses(part, answers)
        golds = {name: _golds(part, name, answers) for name in part.values.golds}
        part.values.add(part.positions, responses, golds, sum(cut))
    return sum(map(len, written))


def _planned(
    engine: Engine, parts: Sequence[_Part]
) -> tuple[list[Reading], list[Prompt], list[Batch]]:
    """Lay out batches; those of whole leaves are kept, those of a race's blocks never come again."""
    whole = all(len(part.positions) == len(part.values.leaf.docs) for part in parts)
    key = tuple(part.key for part in parts)
    if whole and key in engine.plans:
        return cast("tuple[list[Reading], list[Prompt], list[Batch]]", engine.plans[key])
    readings = [each for part in parts for n in part.positions for each in part.readings(n)]
    prompts = [prompt for part in parts for prompt in part.prompts()]
    planned = readings, prompts, engine.plan(readings)
    if whole:
        engine.plans[key] = planned
    return planned


_Answers = Mapping[int, tuple[float, bool, float]]
"""id of a reading → log-likelihood, whether greedy decoding writes it, divergence from a teacher."""


def _responses(part: _Part, answers: _Answers) -> list[list[list[Any]]]:
    """Return what a model of lm-eval's answers to the requests of each document."""
    if not (part.values.requests and part.reads_requests):
        return []
    rolling = part.values.leaf.task.OUTPUT_TYPE == "loglikelihood_rolling"
    add = partial(_together, answers=answers)
    return [
        [[add(each)[0] if rolling else add(each)] for each in part.tokenised.requests[position]]
        for position in part.positions
    ]


def _golds(part: _Part, metric: str, answers: _Answers) -> list[float | None]:
    """Return one value a document; None where its gold answer, if it has one, was not read."""
    if metric == TEACHER_DIVERGENCE:
        return _divergences(part, answers)
    return [_gold(part, position, metric, answers) for position in part.positions]


def _divergences(part: _Part, answers: _Answers) -> list[float | None]:
    taught = part.taught()
    questions = [question for question, _ in taught]
    found = [answers[id(reading)] for question in questions for reading in question.readings]
    sums, apart = (torch.tensor([each[n] for each in found], dtype=torch.float64) for n in (0, 2))
    values = item_divergences(sums, apart, questions, [target for _, target in taught])
    return [
        max(0.0, value / (question.scale * question.positions))  # what rounding leaves of 0
        for question, value in zip(questions, values.tolist(), strict=True)
    ]


def _gold(part: _Part, position: int, metric: str, answers: _Answers) -> float | None:
    readings = part.tokenised.golds[position]
    if not readings:
        return None
    if metric == GOLD_PROBABILITY:
        right = part.values.leaf.choices(position)
        requests = part.tokenised.requests[position][: len(right)]
        return gold_probability([_together(each, answers)[0] for each in requests], right)
    total, is_greedy = _together(readings, answers)
    if metric == GOLD_LOGLIKELIHOOD:
        return total / sum(each.reads for each in readings)
    return float(is_greedy)


def _together(readings: Sequence[Reading], answers: _Answers) -> tuple[float, bool]:
    found = [answers[id(reading)] for reading in readings]
    return sum(value for value, _, _ in found), all(is_greedy for _, is_greedy, _ in found)


def gold_probability(sums: Sequence[float], right: Sequence[bool]) -> float:
    """Return the softmax over the log-likelihoods of an item's choices, the right ones' share."""
    weights = [math.exp(value - max(sums)) for value in sums]
    return sum(weight for weight, is_right in zip(weights, right, strict=True) if is_right) / sum(
        weights
    )
