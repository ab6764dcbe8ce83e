"""Which entries of a task vector are kept: the sparsifiers of the task-arithmetic family.

TIES' trim (arXiv 2306.01708), DARE's drop (2311.03099), Model Breadcrumbs (2312.06795) and DELLA's MagPrune
(2406.11617), as mergekit 0.1.5 has them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from evomerge.merge.methods.method import Inputs, Kept, Parameter

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Sparsifier:
    """A way to thin out a task vector.

    Attributes:
        keep: Inputs, index and density (below 1) → task vector with 0 in the entries that are dropped.
        rule: The same as a rule for each entry by itself; None: there is none.
        random: It draws from the inputs' random numbers.
        ranks: It goes by magnitudes, and so can go by magnitudes times `Inputs.importance`.
        derived_bytes: As of a `Method`; one_pass_bytes too, where there is a rule.
        temporaries: As of a `Method` that elects no signs.
        elected: As of one that does.
        recomputing: As of one that does.
        parameters: Its own besides `density`, each with a default; without effect at a density of 1.
    """

    keep: Callable[[Inputs, int, float], torch.Tensor]
    rule: Callable[[Inputs, int, float], Kept] | None = None
    random: bool = False
    ranks: bool = False
    derived_bytes: int = 0
    one_pass_bytes: int = 0
    temporaries: int = 4
    elected: int = 6
    recomputing: int = 0
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


def largest_entries(inputs: Inputs, index: int, density: float) -> torch.Tensor:
    """Keep the top max(1, floor(density · n)) entries by magnitude; none at density 0 (TIES' trim).

    Of equal magnitudes at the threshold the first are kept (`masks.largest` on mergekit's pick).
    """
    return _kept(inputs, _largest(inputs, index, density), index)


def without_outliers(inputs: Inputs, index: int, density: float) -> torch.Tensor:
    """Drop the floor(gamma · n) largest magnitudes and keep the next max(1, floor(density · n)).

    Where fewer are left behind the outliers, fewer outliers are dropped; none is kept at density 0. (mergekit
    keeps none where floor(density · n) is 0, either.)
    """
    return _kept(inputs, _middle(inputs, index, density), index)


def random_entries(inputs: Inputs, index: int, density: float) -> torch.Tensor:
    """Keep each entry whose uniform number is below `density` (DARE's drop)."""
    from evomerge.merge.methods.tensors import masked

    return masked(inputs.delta(index), inputs.uniform(index), density)


def by_rank(inputs: Inputs, index: int, density: float) -> torch.Tensor:
    """Keep an entry with a probability that is linear in the rank of its magnitude (DELLA's MagPrune).

    In each row (an entry of the first axis; a vector is one row) it goes from density - epsilon for the
    smallest to density + epsilon for the largest. Where mergekit has no answer: both ends stay in [0, 1],
    as epsilon is at most density and 1 - density, and the only entry of a row is kept with probability
    density.
    """
    from evomerge.merge.methods.tensors import masked

    delta, kept = inputs.delta(index), _by_rank(inputs, index, density)
    if kept.by_rank is None:
        return masked(delta, inputs.uniform(index), density)
    lowest, step = kept.by_rank
    ranks = inputs.ranks(index, by_importance=bool(inputs.shared["importance"]))
    probability = ranks.to(delta.dtype).mul_(step).add_(lowest)
    return masked(delta, inputs.uniform(index), probability)


def _kept(inputs: Inputs, kept: Kept, index: int) -> torch.Tensor:
    if not kept.count:
        delta = inputs.delta(index)
        return delta.new_zeros(delta.shape)
    by_importance = bool(inputs.shared["importance"])
    return inputs.largest(index, kept.count, kept.skipped, by_importance=by_importance)


def _largest(inputs: Inputs, index: int, density: float, outliers: int = 0) -> Kept:
    if density <= 0 or inputs.numel == 0:
        return Kept(count=0)
    count = max(1, int(density * inputs.numel))
    return Kept(count=count, skipped=min(outliers, inputs.numel - count))


def _middle(inputs: Inputs, index: int, density: float) -> Kept:
    gamma = float(inputs.own[index]["gamma"])
    return _largest(inputs, index, density, outliers=int(gamma * inputs.numel))


def _below(inputs: Inputs, index: int, density: float) -> Kept:
    return Kept(density=density)


def _by_rank(inputs: Inputs, index: int, density: float) -> Kept:
    shape = inputs.shape
    width = inputs.numel // max(1, shape[0]) if len(shape) > 1 else inputs.numel
    if width < 2 or density <= 0:
        return Kept(density=density)
    spread = min(float(inputs.own[index]["epsilon"]), density, 1 - density)
    return Kept(by_rank=(density - spread, 2 * spread / (width - 1)))


LARGEST = Sparsifier(
    largest_entries,
    _largest,
    ranks=True,
    derived_bytes=12,
    one_pass_bytes=8,
    temporaries=6,
    recomputing=2,
)
RANDOM = Sparsifier(
    random_entries, _below, random=True, derived_bytes=4, temporaries=5, recomputing=2
)
WITHOUT_OUTLIERS = Sparsifier(
    without_outliers,
    _middle,
    ranks=True,
    derived_bytes=12,
    one_pass_bytes=8,
    temporaries=7,
    elected=7,
    recomputing=3,
    parameters={
        "gamma": Parameter(
            "number",
            "share of the task vector's entries, the largest ones, that are dropped; 0.01 is usual",
            default=0.01,
            low=0.0,
            high=1.0,
            per_source=True,
        )
    },
)
BY_RANK = Sparsifier(
    by_rank,
    _by_rank,
    random=True,
    ranks=True,
    derived_bytes=8,
    one_pass_bytes=2,
    temporaries=8,
    elected=8,
    recomputing=3,
    parameters={
        "epsilon": Parameter(
            "number",
            "a row's largest entry is kept with probability density + epsilon, its smallest with density - "
            "epsilon; at most density and 1 - density count",
            default=0.15,
            low=0.0,
            high=1.0,
            per_source=True,
        )
    },
)
