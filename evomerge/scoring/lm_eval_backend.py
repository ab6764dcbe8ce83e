"""Any other model type of lm-eval's on the same items: sglang, an API server, its own hf.

The candidate is a folder here, not a resident module: lm-eval loads it again each time, and answers the
very requests that the resident scorer answers.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import get_model
from lm_eval.models.huggingface import HFLM

from evomerge.candidate.trial import Split
from evomerge.errors import TaskError
from evomerge.scoring.answering import Scored, gold_probability
from evomerge.tasks.items import Items
from evomerge.tasks.metrics import GOLD_EXACT_MATCH, GOLD_PROBABILITY
from evomerge.tasks.rendering import Leaf
from evomerge.tasks.scores import Asked, LeafValues, assemble


class LmEvalBackend:
    """Scores model folders with one of lm-eval's model types.

    Args:
        items: What to score them on.
        name: lm-eval's name of the model type, such as `hf` or `sglang`.
        arguments: Of that type, such as `{"dtype": "float32", "batch_size": 16}`.
        defaults: Arguments for where `arguments` has none; only those are handed over that the type's
            constructor names. `device` is for the `hf` types, whose own default is CUDA:
            the others (sglang) run on what they can see.

    Raises:
        TaskError: lm-eval knows no such model type, or cannot import what it needs.
    """

    takes: Literal["module", "folder"] = "folder"
    races = False
    gradients = False

    def __init__(
        self,
        items: Items,
        name: str,
        arguments: Mapping[str, Any],
        *,
        defaults: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self._items = items
        try:
            self._type: type[LM] = get_model(name)
        except (ValueError, KeyError, ImportError) as error:
            reason = " ".join(str(error).split())[:300]
            raise TaskError(f'lm-eval offers no backend "{name}": {reason}') from None
        named = set(signature(self._type).parameters)
        if not issubclass(self._type, HFLM):
            named -= {"device"}
        taken = {name: value for name, value in defaults.items() if name in named}
        self._arguments = taken | dict(arguments)

    def check(self, metrics: Mapping[str, tuple[str, ...]]) -> None:
        """Raise as `score` does where it cannot give these metrics; no model is needed."""
        self._asked(self._items.splits[0], metrics)

    def score(
        self,
        model: Path,
        split: Split,
        metrics: Mapping[str, tuple[str, ...]],
        *,
        bootstrap_iterations: int = 0,
    ) -> Scored:
        """Load a model from its folder, as `merge.save` writes it, and score it.

        Raises:
            TaskError: An unknown task, split or metric, or one that only resident scoring offers: a mean
                over tokens, or on a gold text in place of a generated one.
        """
        asked = self._asked(split, metrics)
        found = {
            task: [LeafValues(leaf, each) for leaf in self._items.leaves(task, split)]
            for task, each in asked.items()
        }
        loaded = self._type.create_from_arg_obj({"pretrained": str(model)} | self._arguments)
        items = 0
        try:
            for values in (each for leaves in found.values() for each in leaves):
                responses = _ask(loaded, values.leaf)
                golds = {name: _golds(values.leaf, responses, name) for name in values.golds}
                values.add(range(len(responses)), responses, golds)
                items += len(responses)
        finally:
            del loaded
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return Scored(*assemble(self._items, asked, found, bootstrap_iterations), 0, items)

    def _asked(self, split: Split, metrics: Mapping[str, tuple[str, ...]]) -> dict[str, Asked]:
        asked = {task: Asked.of(self._items, task, split, names) for task, names in metrics.items()}
        for task, each in asked.items():
            for leaf in self._items.leaves(task, split):
                _refuse(leaf, each.golds_of(leaf))
        return asked


def _ask(model: LM, leaf: Leaf) -> list[list[Any]]:
    """Hand a leaf's requests to a model; the responses by document and request, repeats side by side."""
    flat = [request for requests in leaf.requests for request in requests]
    clones: list[Instance] = [each for each in flat for _ in range(each.repeats or 1)]
    kind = "loglikelihood" if leaf.task.OUTPUT_TYPE == "multiple_choice" else leaf.task.OUTPUT_TYPE
    answers = iter(getattr(model, kind)(clones))
    return [
        [[next(answers) for _ in range(each.repeats or 1)] for each in requests]
        for requests in leaf.requests
    ]


def _golds(leaf: Leaf, responses: Sequence[Sequence[Any]], metric: str) -> list[float | None]:
    """Return one value a document; None where it has no gold answer."""
    found: list[float | None] = []
    for index, (gold, answers) in enumerate(zip(leaf.golds, responses, strict=True)):
        first = [repeats[0] for repeats in answers]
        if gold is None:
            found.append(None)
        elif metric == GOLD_PROBABILITY:
            right = leaf.choices(index)
            found.append(gold_probability([each[0] for each in first[: len(right)]], right))
        else:  # gold_exact_match
            found.append(float(first[gold.choices[0]][1]))
    return found


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
