"""Parents and naive merges: what a search must beat, and good points to start from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from evomerge.candidate import Candidate, Merge
from evomerge.candidate.trial import Entry
from evomerge.space.facts import Family

LAMBDAS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
TIES_DENSITY = 0.2
"""Yadav et al. 2023 (2306.01708), section 4: keep the top 20 %, all weights 1."""


@dataclass(frozen=True)
class Wanted:
    """Values of a baseline's parameters, by which its point in a space is found.

    Attributes:
        weights: Expert → weight.
        others: Parameter → value, the same for all experts.
    """

    weights: Mapping[str, float]
    others: Mapping[str, float] = field(default_factory=dict)

    def value(self, parameter: str, expert: str | None) -> float | None:
        """Return the value of `parameter` for `expert` (None: for all at once), None if undefined."""
        if parameter != "weight":
            return self.others.get(parameter)
        if expert is not None:
            return self.weights[expert]
        values = set(self.weights.values())
        return values.pop() if len(values) == 1 else None


Locate = Callable[[str, Wanted], dict[str, float] | None]


@dataclass(frozen=True)
class Baseline:
    """A model to compare with.

    Attributes:
        name: What reports call it.
        role: `base` or `expert` (a parent), or `baseline` (a naive merge).
        candidate: How to build it.
        params: Its point in the searched space; None where it does not lie in it.
        scale: Lambda of a task-arithmetic merge; the best one on `select` is the tuned one.
    """

    name: str
    role: Literal["base", "expert", "baseline"]
    candidate: Candidate
    params: Mapping[str, float] | None = None
    scale: float | None = None

    @property
    def entry(self) -> Entry:
        """What is scored."""
        return Entry(self.name, self.candidate, role=self.role)

    @property
    def key(self) -> str:
        """Its identity, as `trial.row_key` returns it."""
        return self.entry.key


def baselines(family: Family, locate: Locate) -> tuple[Baseline, ...]:
    """Return base, experts, uniform average, task arithmetic over `LAMBDAS`, and default TIES.

    Args:
        family: The models.
        locate: Finds the point of a method with given values in the searched space.
    """
    merges, experts = _Merges(family), family.experts
    nothing = _plain(locate, dict.fromkeys(experts, 0.0))
    found = [Baseline("base", "base", merges.alone(family.base), nothing)]
    for name, model in experts.items():
        one = {other: float(other == name) for other in experts}
        found.append(Baseline(name, "expert", merges.alone(model), _plain(locate, one)))
    share = dict.fromkeys(experts, 1 / len(experts))
    point = _plain(locate, share)
    for weights in (dict.fromkeys(experts, 1.0), share):  # normalised, both are the same
        point = point or locate("linear", Wanted(weights, {"normalize": True}))
    found.append(Baseline("uniform average", "baseline", merges.average(), point))
    for scale in LAMBDAS:
        merge = merges.merged("task_arithmetic", {"weight": scale})
        params = _plain(locate, dict.fromkeys(experts, scale))
        found.append(Baseline(f"task arithmetic λ={scale:g}", "baseline", merge, params, scale))
    values = {"density": TIES_DENSITY, "normalize": True, "lambda": 1.0, "rescale": False}
    ties = merges.merged("ties", {"weight": 1.0, "density": TIES_DENSITY})
    point = locate("ties", Wanted(dict.fromkeys(experts, 1.0), values))
    found.append(Baseline("ties", "baseline", ties, point))
    return tuple(found)


@dataclass(frozen=True)
class _Merges:
    """Merges of a family; with a vocabulary of its own, each names all models, which fill up its rows."""

    family: Family

    def alone(self, model: str) -> Merge:
        family = self.family
        if family.vocabulary is None:
            return Merge("passthrough", (model,), dtype=family.dtype)
        return self._weighted({model: 1.0})

    def average(self) -> Merge:
        if self.family.vocabulary is not None:
            return self._weighted(dict.fromkeys(self.family.experts.values(), 1.0))
        return self.merged("linear", {"weight": 1.0}, with_base=False)

    def merged(self, method: str, fixed: Mapping[str, float], *, with_base: bool = True) -> Merge:
        return Merge(
            method,
            tuple(self.family.experts.values()),
            self.family.base if with_base else None,
            fixed=fixed,
            dtype=self.family.dtype,
            vocabulary=self.family.vocabulary,
        )

    def _weighted(self, weights: Mapping[str, float]) -> Merge:
        """The mean of some models, as they are in the vocabulary of all."""
        models = (self.family.base, *self.family.experts.values())
        return Merge(
            "linear",
            models,
            self.family.base,
            merges_base=False,
            own={"weight": ((tuple(weights.get(one, 0.0) for one in models),),)},
            dtype=self.family.dtype,
            vocabulary=self.family.vocabulary,
        )


def _plain(locate: Locate, weights: Mapping[str, float]) -> dict[str, float] | None:
    """Find base + Σ weight · task vector: task arithmetic, or DARE that drops nothing."""
    others = {"density": 1.0, "lambda": 1.0, "normalize": False, "rescale": False}
    wanted = Wanted(weights, others)
    dare = Wanted(weights, {**others, "rescale": True})  # density 1 is never rescaled
    return locate("task_arithmetic", wanted) or locate("dare_linear", dare)
