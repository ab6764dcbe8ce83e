"""What the gates of a mixture learn from: the prompts of the search items, and who answers each best."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from evomerge.candidate import Mixture
from evomerge.candidate.trial import Values
from evomerge.combine.gates import Lesson, fit_gates
from evomerge.combine.mixture import ResidentMixtures
from evomerge.errors import MergeError


def fitted(
    candidate: Mixture,
    mixtures: ResidentMixtures,
    prompts: Mapping[str, Sequence[tuple[int, ...]]],
    known: Mapping[str, Values],
) -> Mixture:
    """Return a mixture with gates; one that has them as it is.

    Args:
        candidate: The mixture.
        mixtures: What builds it.
        prompts: Task → tokens of each search item's prompt.
        known: Expert → task → how good it is at each of them.

    Raises:
        MergeError: The scores of an expert are missing.
    """
    if candidate.fit is not None:
        return candidate
    names = list(candidate.experts)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise MergeError(f"the gates learn from the scores of {unknown[0]}, which was not scored")
    found = list(lessons(prompts, [known[name] for name in names]))
    module = mixtures.write(*candidate.recipe())
    return replace(candidate, fit=fit_gates(module, found, temperature=candidate.temperature))


def lessons(
    prompts: Mapping[str, Sequence[tuple[int, ...]]], known: Sequence[Values]
) -> Iterator[Lesson]:
    """Give what gates learn of each prompt: its one best expert; of equals the best at its task.

    Tasks weigh the same, however many items they have.

    Args:
        prompts: Task → tokens of each item's prompt; one without tokens is left out.
        known: Per expert task → how good it is at each item.
    """
    for task, texts in prompts.items():
        values = np.array([one[task] for one in known])  # [experts, items]
        order = np.argsort(-values.mean(axis=1), kind="stable")
        best = order[values[order].argmax(axis=0)]
        for tokens, expert in zip(texts, best, strict=True):
            if tokens:
                targets = np.eye(len(known))[expert]
                yield Lesson(tokens, tuple(targets.tolist()), 1 / len(texts))
