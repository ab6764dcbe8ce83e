"""What travels where an expert reads prompts, and statistics of its activations are taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from evomerge.candidate.candidate import Candidate
from evomerge.candidate.cost import Cost
from evomerge.candidate.tables import Array
from evomerge.candidate.trial import Failure, Split


@dataclass(frozen=True)
class ActivationsJob:
    """An expert that reads the prompts of a split.

    Attributes:
        name: What messages call it.
        candidate: The expert; one module.
        tasks: Whose prompts; none: those of all tasks.
        moments: All second moments are wanted, not only mean squares.
        split: Whose prompts.
    """

    name: str
    candidate: Candidate
    tasks: tuple[str, ...] = ()
    moments: bool = False
    split: Split = "search"


@dataclass(frozen=True)
class ActivationsFound:
    """What came of an `ActivationsJob`: arrays by tensor, or a `failure`.

    Attributes:
        squares: Tensor of a linear layer → root mean square of each column that enters it, float32
            `[1, columns]`.
        moments: Tensor → mean of x xT, float32 `[columns, columns]`; empty where it was not asked for.
    """

    squares: Mapping[str, Array] = field(default_factory=dict)
    moments: Mapping[str, Array] = field(default_factory=dict)
    failure: Failure | None = None
    cost: Cost = field(default_factory=Cost)
    worker: str = ""
