"""Documents of several leaves, scored by one module together: planned, read and written, then sorted out."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch

from evomerge.candidate.trial import Target, TaskScores
from evomerge.inference.batches import Batch
from evomerge.inference.divergence import Divergence
from evomerge.inference.encoding import Reading
from evomerge.inference.engine import Engine
from evomerge.inference.generation import Prompt
from evomerge.inference.loss import Question, item_divergences
from evomerge.scoring.tokenised import TokenisedLeaf
from evomerge.tasks.metrics import GOLD_LOGLIKELIHOOD, GOLD_PROBABILITY, TEACHER_DIVERGENCE
from evomerge.tasks.scores import LeafValues


@dataclass(frozen=True)
class Scored:
    """Scores on one split."""

    tasks: Mapping[str, TaskScores]  # requested task or group → scores
    subtasks: Mapping[str, TaskScores]  # task of a requested group → scores
    generated_tokens: int  # tokens that were generated
    items: int  # items that were scored


@dataclass(frozen=True)
class LeafPart:
    """Documents of one leaf that are scored together with others'."""

    tokenised: TokenisedLeaf
    values: LeafValues
    positions: Sequence[int]
    targets: Sequence[Target]  # one a document where a teacher is asked for, else none

    @property
    def reads_requests(self) -> bool:
        """Whether the requests are read, not only the gold answers."""
        choices = GOLD_PROBABILITY in self.values.golds or TEACHER_DIVERGENCE in self.values.golds
        needed = self.values.requests or choices
        return needed and not self.tokenised.writes

    @property
    def key(self) -> Hashable:
        """Equal for parts that read and write the same."""
        values = self.values
        return (id(values.leaf), values.requests, bool(values.golds), self.reads_requests)

    def prompts(self) -> list[Prompt]:
        """Return what is continued: one of each document, or none."""
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


def answer(engine: Engine, parts: Sequence[LeafPart]) -> int:
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
    engine: Engine, parts: Sequence[LeafPart]
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


def _responses(part: LeafPart, answers: _Answers) -> list[list[list[Any]]]:
    """Return what a model of lm-eval's answers to the requests of each document."""
    if not (part.values.requests and part.reads_requests):
        return []
    rolling = part.values.leaf.task.OUTPUT_TYPE == "loglikelihood_rolling"
    add = partial(_together, answers=answers)
    return [
        [[add(each)[0] if rolling else add(each)] for each in part.tokenised.requests[position]]
        for position in part.positions
    ]


def _golds(part: LeafPart, metric: str, answers: _Answers) -> list[float | None]:
    """Return one value a document; None where its gold answer, if it has one, was not read."""
    if metric == TEACHER_DIVERGENCE:
        return _divergences(part, answers)
    return [_gold(part, position, metric, answers) for position in part.positions]


def _divergences(part: LeafPart, answers: _Answers) -> list[float | None]:
    taught = part.taught()
    questions = [question for question, _ in taught]
    found = [answers[id(reading)] for question in questions for reading in question.readings]
    sums, apart = (torch.tensor([each[n] for each in found], dtype=torch.float64) for n in (0, 2))
    values = item_divergences(sums, apart, questions, [target for _, target in taught])
    return [
        max(0.0, value / (question.scale * question.positions))  # what rounding leaves of 0
        for question, value in zip(questions, values.tolist(), strict=True)
    ]


def _gold(part: LeafPart, position: int, metric: str, answers: _Answers) -> float | None:
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
