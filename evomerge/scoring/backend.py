"""Any other model type of lm-eval's on the same items: vllm, sglang, an API server, its own hf.

The candidate is a folder here, not a resident module: lm-eval loads it again each time, and answers the
very requests that the resident scorer answers.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import get_model
from lm_eval.models.huggingface import HFLM

from evomerge.candidate.trial import Split, TaskScores
from evomerge.errors import TaskError
from evomerge.inference import gold
from evomerge.scoring.scorer import Scored
from evomerge.tasks.assembly import Asked, LeafValues, asked_metrics, assemble, leaf_scores
from evomerge.tasks.evaluation import item_values
from evomerge.tasks.items import Items
from evomerge.tasks.metrics import GOLD_EXACT_MATCH, GOLD_PROBABILITY
from evomerge.tasks.rendering import Leaf

_PASSED_ON: Mapping[str, set[str]] = {"vllm": {"gpu_memory_utilization"}}
"""Arguments that a type hands to its engine without naming them."""


class BackendScorer:
    """Scores model folders with one of lm-eval's model types.

    Args:
        items: What to score them on.
        backend: lm-eval's name of the model type, such as `hf` or `vllm`.
        arguments: Of that type, such as `{"dtype": "float32", "batch_size": 16}`.
        defaults: Arguments for where `arguments` has none; only those are handed over that the type's
            constructor or its engine names. `device` is for the `hf` types, whose own default is CUDA:
            the others (vllm, sglang) run on what they can see.

    Raises:
        TaskError: lm-eval knows no such model type, or cannot import what it needs.
    """

    def __init__(
        self,
        items: Items,
        backend: str,
        arguments: Mapping[str, Any],
        *,
        defaults: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self._items = items
        try:
            self._type: type[LM] = get_model(backend)
        except (ValueError, KeyError, ImportError) as error:
            reason = " ".join(str(error).split())[:300]
            raise TaskError(f'lm-eval offers no backend "{backend}": {reason}') from None
        named = set(signature(self._type).parameters) | _PASSED_ON.get(backend, set())
        if not issubclass(self._type, HFLM):
            named -= {"device"}
        taken = {name: value for name, value in defaults.items() if name in named}
        self._arguments = taken | dict(arguments)

    def check(self, metrics: Mapping[str, tuple[str, ...]]) -> None:
        """Raise as `score` does where it cannot give these metrics; no model is needed."""
        self._asked(self._items.splits[0], metrics)

    def score(
        self,
        folder: Path,
        split: Split,
        metrics: Mapping[str, tuple[str, ...]],
        *,
        bootstrap_iterations: int = 0,
    ) -> Scored:
        """Load a model and score it.

        Args:
            folder: The model, as `merge.save` writes it.
            split: Which items.
            metrics: Requested task or group → its metrics.
            bootstrap_iterations: Draws for standard errors without a closed form; 0: they have none.

        Raises:
            TaskError: An unknown task, split or metric, or one that only resident scoring offers: a mean
                over tokens, or on a gold text in place of a generated one.
        """
        asked = self._asked(split, metrics)
        leaves = [(leaf, asked[task]) for task in asked for leaf in self._items.leaves(task, split)]
        model = self._type.create_from_arg_obj({"pretrained": str(folder)} | self._arguments)
        try:
            scored = [
                _score(leaf, _ask(model, leaf), wanted, bootstrap_iterations)
                for leaf, wanted in leaves
            ]
        finally:
            del model
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        tasks, subtasks = assemble(self._items, split, asked, scored)
        return Scored(tasks, subtasks, 0, sum(len(leaf.docs) for leaf, _ in leaves))

    def _asked(self, split: Split, metrics: Mapping[str, tuple[str, ...]]) -> dict[str, Asked]:
        asked = {
            task: asked_metrics(self._items, task, split, names) for task, names in metrics.items()
        }
        for task, each in asked.items():
            for leaf in self._items.leaves(task, split):
                _refuse(leaf, each.golds)
        return asked


def _ask(model: LM, leaf: Leaf) -> list[list[Any]]:
    """Hand a leaf's requests to a model; the responses by document and request, repeats side by side."""
    flat = [request for requests in leaf.requests for request in requests]
    clones: list[Instance] = [each for each in flat for _ in range(each.repeats or 1)]
    kind = "loglikelihood" if leaf.task.OUTPUT_TYPE == "multiple_choice" else leaf.task.OUTPUT_TYPE
    answers = iter(getattr(model, kind)(clones))
    responses = iter([[next(answers) for _ in range(each.repeats or 1)] for each in flat])
    return [[next(responses) for _ in requests] for requests in leaf.requests]


def _score(
    leaf: Leaf, responses: Sequence[Sequence[Any]], wanted: Asked, iterations: int
) -> TaskScores:
    named = wanted.named or {}
    computed = item_values(leaf, responses, list(named.values()), repeated=True)
    values: dict[str, Sequence[Any]] = {name: computed[pair] for name, pair in named.items()}
    first = [[repeats[0] for repeats in each] for each in responses]
    values |= {name: _gold(leaf, first, name) for name in wanted.golds}
    return leaf_scores(leaf, LeafValues(range(len(leaf.docs)), values, 0), iterations)


def _gold(
    leaf: Leaf, responses: Sequence[Sequence[tuple[float, bool]]], metric: str
) -> list[float]:
    rights = [() if each is None else each.choices for each in leaf.golds]  # none is None
    if metric == GOLD_PROBABILITY:
        choices = [len(leaf.task.doc_to_choice(doc)) for doc in leaf.docs]
        sums = [
            answer[0]
            for each, count in zip(responses, choices, strict=True)
            for answer in each[:count]
        ]
        item = [index for index, count in enumerate(choices) for _ in range(count)]
        right = [
            choice in golds
            for golds, count in zip(rights, choices, strict=True)
            for choice in range(count)
        ]
        found = gold.gold_probability(
            torch.tensor(sums), torch.tensor(item), torch.tensor(right), len(choices)
        )
        return [float(value) for value in found]
    chosen = [each[golds[0]] for each, golds in zip(responses, rights, strict=True)]
    return [float(is_greedy) for _, is_greedy in chosen]  # gold_exact_match


def _refuse(leaf: Leaf, golds: Sequence[str]) -> None:
    """A backend tells of each request its log-likelihood and whether it is greedy, nothing more."""
    chosen = leaf.task.OUTPUT_TYPE in ("multiple_choice", "loglikelihood")
    offered = (GOLD_PROBABILITY, GOLD_EXACT_MATCH) if chosen else ()
    for name in golds:
        if name not in offered:
            raise TaskError(
                f'task "{leaf.name}": {name} needs resident scoring; leave out "scorer: backend", or '
                "take another metric"
            )
