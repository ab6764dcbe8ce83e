"""Parents and naive merges: what a search must beat, and good points to start from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from evomerge import config as campaign
from evomerge.candidate import Candidate, Merge
from evomerge.candidate.trial import Entry
from evomerge.merge.methods.core_space import CORE_SPACE
from evomerge.space import choices
from evomerge.space.dimensions import WEIGHT, Family, Searched, within
from evomerge.space.groups import Numbers

if TYPE_CHECKING:
    from evomerge.space.space import Space

LAMBDAS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
TIES_DENSITY = 0.2
"""Yadav et al. 2023 (2306.01708), section 4: keep the top 20 %, all weights 1.

What to compare with, and nowhere a search begins: from the defaults searches of the zoo end at 0.73 of exact
match, from here at 0.60."""

WHOLE = ("task_arithmetic", "dare_linear", "breadcrumbs", "della_linear")
"""Methods that add weighted task vectors up, entry by entry those that they keep: at density 1 all."""
IDLE = frozenset({"rescale", "gamma", "epsilon", "importance", CORE_SPACE})
"""Their parameters without effect at density 1."""

BASE, BEST = "base", "best"
"""Members of candidates beside the experts: the base, and the best merge of the campaign so far."""
SAME = 1e-9
"""Sums that differ by less, relatively, are the same."""


@dataclass(frozen=True)
class Wanted:
    """Values of a baseline's parameters, by which its point in a space is found.

    Attributes:
        weights: Expert → weight.
        others: Parameter → value, the same for all experts.
        idle: Parameters that may have any value.
    """

    weights: Mapping[str, float]
    others: Mapping[str, float] = field(default_factory=dict)
    idle: frozenset[str] = frozenset()

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
        also_at: Its points in other spaces that compete with that of `params`.
    """

    name: str
    role: Literal["base", "expert", "baseline"]
    candidate: Candidate
    params: Mapping[str, float] | None = None
    scale: float | None = None
    also_at: tuple[Mapping[str, float], ...] = ()

    @property
    def entry(self) -> Entry:
        """What is scored."""
        return Entry(self.name, self.candidate, role=self.role)

    @property
    def key(self) -> str:
        """Its identity, as `trial.row_key` returns it."""
        return self.entry.key


def baselines(family: Family, locate: Locate) -> tuple[Baseline, ...]:
    """Return base, experts, uniform average, task arithmetic over `LAMBDAS`, and untuned TIES.

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
    ties = merges.merged("ties", {"weight": 1.0, "density": TIES_DENSITY})
    found.append(Baseline("ties", "baseline", ties))
    return tuple(found)


def average(family: Family) -> Merge:
    """Return the mean of the experts."""
    return _Merges(family).average()


def regression(family: Family) -> Merge:
    """Return regmean of the experts, with equal weights and all else as it is by default."""
    return _Merges(family).merged("regmean", {"weight": 1.0})


def parent(family: Family, model: str) -> Merge:
    """Return a model as it is, in the vocabulary of all."""
    return _Merges(family).alone(model)


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
    """Find base + Σ weight · task vector."""
    wanted = Wanted(weights, {"density": 1.0, "lambda": 1.0, "normalize": False}, IDLE)
    found = (locate(method, wanted) for method in WHOLE)
    return next((point for point in found if point is not None), None)


def located(space: Space, method: str, wanted: Wanted) -> dict[str, float] | None:
    """Return the point whose model is `method` with the `wanted` values; None if there is none.

    Args:
        space: Where to look.
        method: Name of the method; the point chooses it.
        wanted: Values that are the same in all groups of layers and components. An expert of
            weight 0 takes no part where experts may be left out.
    """
    if method not in space.settings.method:
        return None
    experts, takes = list(space.family.experts), space.methods[method].parameters
    if any(
        name in takes and not _is(wanted, name, value, experts)
        for name, value in space.settings.parameters.items()
        if not isinstance(value, campaign.Range) and name not in {*space.named, *wanted.idle}
    ):
        return None
    part = None
    if space.settings.subsets:
        part = np.array([float(wanted.weights[expert] != 0) for expert in experts])
        part[0] = part[0] if part.any() else 1.0
        if WEIGHT not in takes:
            part[:] = 1.0
    params = choices.choosing(space.settings.method, method)
    if part is not None:
        params |= {choices.use(e): float(on) for e, on in zip(experts, part, strict=True)}
    for one in space.searched:
        values = _middle(one)
        if one.name in takes and one.name not in wanted.idle:
            found = _values(one, wanted, experts, part if one.name == WEIGHT else None)
            if found is None:
                return None
            values = found
        params |= one.params(one.constant(values))
    return {name: params[name] for name in space.distributions}


def _values(
    one: Searched, wanted: Wanted, experts: list[str], part: Numbers | None
) -> Numbers | None:
    """Return the wanted values of a parameter, [experts]; None if it cannot have them."""
    on = np.ones(len(experts)) if part is None else part
    active = {e: wanted.weights[e] for e, is_on in zip(experts, on, strict=True) if is_on}
    asked = replace(wanted, weights=active)
    taking = [expert is None or expert in active for expert in one.experts]
    values = [
        asked.value(one.name, expert) if is_on else 0.0
        for expert, is_on in zip(one.experts, taking, strict=True)
    ]
    if any(value is None for value in values):
        return None
    found = np.array(values, dtype=np.float64)
    if one.total is not None:
        if not math.isclose(found.sum(), one.total, rel_tol=SAME):
            return None
        found = within(found, one.high)
    inside = (one.low <= found) & (found <= one.high)
    if not (inside | ~np.array(taking)).all():
        return None
    return found.clip(one.low, one.high)


def _middle(one: Searched) -> Numbers:
    middle: Numbers = np.sqrt(one.low * one.high) if one.log else (one.low + one.high) / 2
    return middle


def _is(wanted: Wanted, parameter: str, fixed: float, experts: list[str]) -> bool:
    values = [wanted.value(parameter, expert) for expert in experts]
    return all(value is not None and value == fixed for value in values)
