"""What travels where models read the same prompts, and their hidden states are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from evomerge.candidate.candidate import Candidate
from evomerge.candidate.cost import Cost
from evomerge.candidate.trial import Failure, Split


@dataclass(frozen=True)
class StatesJob:
    """Models whose hidden states on the prompts of a split are compared.

    Attributes:
        name: What messages call it.
        models: Name → model; each is one module.
        split: Whose prompts.
        limit: Most prompts of a task: the states of all models are held at once.
    """

    name: str
    models: Mapping[str, Candidate]
    split: Split
    limit: int


@dataclass(frozen=True)
class StatesFound:
    """What came of a `StatesJob`: distances, or a `failure`.

    Attributes:
        distances: `[layers + 1][models][models]`, from the embeddings to the last layer; how far two models'
            mean states of a prompt are apart, as a share of how long they are, over all prompts.
        prompts: How many prompts were read.
    """

    distances: tuple[tuple[tuple[float, ...], ...], ...] = ()
    prompts: int = 0
    failure: Failure | None = None
    cost: Cost = field(default_factory=Cost)
    worker: str = ""
