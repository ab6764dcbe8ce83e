"""Paths through the layers of several models as a rectangle of numbers.

A pass goes by all layers once; what it includes is the path. Behind another comes the next pass, so that
layers can be repeated. In the order `members` a pass goes through all layers of one member, then through
those of the next, each with an indicator (the data-flow space of Akiba et al. 2024, 2403.13187). In the order
`layers` it goes layer by layer: each member has a score for it, leaving it out has one, and the highest wins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import NormalDist

from optuna.distributions import FloatDistribution

from evomerge import config as campaign
from evomerge.candidate import Coefficients, Merge, PathStep, Stack
from evomerge.candidate.trial import Gradients
from evomerge.space.baselines import BEST, Baseline, baselines, parent
from evomerge.space.dimensions import Family, brought_within
from evomerge.space.groups import LayerGroups
from evomerge.space.needs import Needs

INCLUDED = 0.5
"""From here on an indicator includes its layers."""
STEP = 0.075
"""First step of CMA-ES, as a share of a range."""
CHANGES = 2.0
"""Slots of a parent's own path that such a step changes, in the mean."""
MOST = 0.4
"""Largest probability of a change in one slot."""
SKIP = "skip"
"""Stands beside the members where one of them, or none, is chosen."""


@dataclass(frozen=True)
class Slot:
    """Layers that a path may go through, at their place in the order of all slots.

    Attributes:
        layers: [start, stop).
        member: Whose; None: one of all.
        name: What its dimensions are called by.
        turn: Which pass, from 0.
    """

    layers: tuple[int, int]
    member: str | None
    name: str
    turn: int


@dataclass(frozen=True)
class StackSpace:
    """Distributions of a campaign of stacks, and the candidates of their points.

    Attributes:
        family: The models.
        members: Names of what layers are taken from: experts, `base`, `best`.
        slots: In the order in which a path goes through them.
        scale: Of the input of layers that do not follow their predecessor in its model.
    """

    family: Family
    members: tuple[str, ...]
    slots: tuple[Slot, ...]
    scale: campaign.Range | float = 1.0

    @classmethod
    def build(
        cls,
        family: Family,
        members: tuple[str, ...],
        groups: LayerGroups,
        *,
        repeats: int,
        order: str,
        scale: campaign.Range | float,
    ) -> StackSpace:
        """Lay out the slots.

        Args:
            family: The models.
            members: What layers are taken from.
            groups: Layers that are included together.
            repeats: Number of passes.
            order: Of a pass: `members` or `layers`.
            scale: As the attribute.
        """
        owners: tuple[str | None, ...] = members if order == "members" else (None,)
        slots = tuple(
            Slot(group, owner, _name(owner, group, turn, repeats), turn)
            for turn in range(repeats)
            for owner in owners
            for group in groups
        )
        return cls(family, members, slots, scale)

    @cached_property
    def distributions(self) -> Mapping[str, FloatDistribution]:
        """Dimension → its range: indicators or scores, and scales."""
        names = (name for slot in self.slots for name in self._choices(slot).values())
        found = {name: FloatDistribution(0.0, 1.0) for name in names}
        if isinstance(self.scale, campaign.Range):
            own = FloatDistribution(self.scale.low, self.scale.high, log=self.scale.log)
            found |= {f"scale/{slot.name}": own for slot in self.slots}
        return found

    differentiable: tuple[str, ...] = ()
    regions: None = None
    takes_rows: bool = False

    @property
    def needs(self) -> Needs:
        """The memory of the deepest path, beside the live model."""
        owners = {slot.member for slot in self.slots}
        passes = 1 + max(slot.turn for slot in self.slots)
        return Needs(whole_models=1 + passes * len(owners), best_merge=BEST in self.members)

    def path(self, params: Mapping[str, float]) -> tuple[PathStep, ...]:
        """Return the path of a point, which may have no layers."""
        path: list[PathStep] = []
        for slot in self.slots:
            member = self._chosen(slot, params)
            if member is None:
                continue
            for layer in range(*slot.layers):
                follows = not path or path[-1][:2] == (member, layer - 1)
                path.append(PathStep(member, layer, 1.0 if follows else self._scale(slot, params)))
        return tuple(path)

    def candidate(
        self,
        params: Mapping[str, float],
        coefficients: Coefficients | None = None,
        best: Merge | None = None,
    ) -> Stack:
        """Return the stack of a point.

        Args:
            params: A value for each of `distributions`.
            coefficients: Ignored.
            best: The campaign's best merge, where it is a member; None: the base.
        """
        path = self.path(params)
        used = {step.member for step in path}
        members = {
            name: parent(self.family, self._model(name)) if name != BEST or best is None else best
            for name in self.members
            if name in used
        }
        return Stack(self.family.base, members, path)

    def own_path(self, member: str) -> dict[str, float]:
        """Return the point whose model is one member as it is."""
        point: dict[str, float] = {}
        for slot in self.slots:
            on = slot.turn == 0 and slot.member in (None, member)
            wanted = member if on else SKIP
            margin = self._margin(slot)
            for choice, name in self._choices(slot).items():
                point[name] = INCLUDED + (margin if choice == wanted else -margin)
            if isinstance(self.scale, campaign.Range):
                point[f"scale/{slot.name}"] = min(max(1.0, self.scale.low), self.scale.high)
        return {name: point[name] for name in self.distributions}

    def baselines(self) -> tuple[Baseline, ...]:
        """Return parents and naive merges, each parent that is a member with the point of its own path."""
        return tuple(
            replace(row, params=self.own_path(row.name))
            if row.role != "baseline" and row.name in self.members
            else row
            for row in baselines(self.family, lambda method, wanted: None)
        )

    def first(self) -> tuple[dict[str, float], ...]:
        """Return every member's own path: so the search begins with models that are sound."""
        return tuple(map(self.own_path, self.members))

    def gradient(self, params: Mapping[str, float], gradients: Gradients) -> dict[str, float]:
        """Return nothing: no dimension has a gradient."""
        return {}

    def taken_over(
        self, settings: campaign.Campaign, params: Mapping[str, float]
    ) -> dict[str, float] | None:
        """Return the same point of an earlier campaign whose dimensions are these; else None."""
        return brought_within(params, self.distributions)

    def _choices(self, slot: Slot) -> dict[str, str]:
        """Return what may stand in a slot → the dimension that says how much it is wanted."""
        if slot.member is not None:
            return {slot.member: f"include/{slot.name}"}
        return {name: f"{name}/{slot.name}" for name in (*self.members, SKIP)}

    def _chosen(self, slot: Slot, params: Mapping[str, float]) -> str | None:
        """Return whose layers stand in a slot; None: no layers."""
        scores = {choice: params[name] for choice, name in self._choices(slot).items()}
        if slot.member is not None:
            return slot.member if scores[slot.member] >= INCLUDED else None
        best = max(scores, key=scores.__getitem__)
        return None if best == SKIP else best

    def _margin(self, slot: Slot) -> float:
        """Return how far numbers of an own path stand from the middle: a step changes few slots."""
        others = 1 if slot.member is not None else len(self.members)
        apart = STEP if slot.member is not None else STEP / math.sqrt(2)
        share = min(MOST, CHANGES / len(self.slots)) / others
        return -apart * NormalDist().inv_cdf(share)

    def _scale(self, slot: Slot, params: Mapping[str, float]) -> float:
        if isinstance(self.scale, campaign.Range):
            return params[f"scale/{slot.name}"]
        return self.scale

    def _model(self, member: str) -> str:
        return self.family.experts.get(member, self.family.base)


def _name(owner: str | None, layers: tuple[int, int], turn: int, repeats: int) -> str:
    """Return how a slot is called, such as `facts/0-2` or, where layers can be repeated, `facts/0-2/2`."""
    parts = (owner, "{}-{}".format(*layers), str(turn + 1) if repeats > 1 else None)
    return "/".join(part for part in parts if part is not None)
