"""What travels where an expert reads prompts, and statistics of its activations are taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from evomerge.candidate.cost import Cost
from evomerge.candidate.merge import Merge
from evomerge.candidate.tables import Array
from evomerge.candidate.trial import Failure, Split


@dataclass(frozen=True)
class ActivationsJob:
    """An expert that reads the prompts of a split, or several whose layers are merged one after another.

    Attributes:
        name: What messages call it.
        candidate: The expert, one module; or the merge of `experts`.
        tasks: Whose prompts; none: those of all tasks.
        moments: All second moments are wanted, not only mean squares.
        split: Whose prompts.
        experts: What each expert of the merge reads, in its order; none: there is no merge.
    """

    name: str
    candidate: Merge
    tasks: tuple[str, ...] = ()
    moments: bool = False
    split: Split = "search"
    experts: tuple[ActivationsJob, ...] = ()

    def renamed(self, rename: Callable[[str], str]) -> ActivationsJob:
        """Return the same under other names of the models, as `Candidate.renamed` does."""
        experts = tuple(one.renamed(rename) for one in self.experts)
        return replace(self, candidate=self.candidate.renamed(rename), experts=experts)


@dataclass(frozen=True)
class ActivationsFound:
    """What came of an `ActivationsJob`: arrays by tensor, or a `failure`.

    Attributes:
        squares: Tensor of a linear layer → root mean square of each column that enters it, float32
            `[1, columns]`.
        moments: Tensor → mean of x xT, float32 `[columns, columns]`; empty where it was not asked for.
        merged: Of each of the job's `experts`, tensor → mean of x xT where the layers before are merged.
    """

    squares: Mapping[str, Array] = field(default_factory=dict)
    moments: Mapping[str, Array] = field(default_factory=dict)
    merged: tuple[Mapping[str, Array], ...] = ()
    failure: Failure | None = None
    cost: Cost = field(default_factory=Cost)
    worker: str = ""
