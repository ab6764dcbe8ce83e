"""Kinds that compete: one space made of several, each with its own dimensions; scores choose among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from optuna.distributions import FloatDistribution

from evomerge import config
from evomerge.candidate import Candidate, Coefficients, Merge
from evomerge.space.baselines import Baseline
from evomerge.space.choices import Choices
from evomerge.space.dimensions import middle
from evomerge.space.needs import Needs
from evomerge.space.regions import Region, Regions
from evomerge.space.space import Space

if TYPE_CHECKING:
    from evomerge.candidate.trial import Gradients
    from evomerge.kinds import SearchSpace

Point = Mapping[str, float]
SCORE = "kind/"
"""Begins the dimension of a space's score: the space with the highest one has the candidate."""


def chosen(names: Sequence[str], params: Point) -> str:
    """Return the space with the highest score at a point, the first of equals."""
    return max(names, key=lambda name: params[SCORE + name])


def own(name: str, params: Point) -> dict[str, float]:
    """Return the coordinates of a point in one of the spaces."""
    prefix = f"{name}/"
    return {at.removeprefix(prefix): v for at, v in params.items() if at.startswith(prefix)}


def in_one_space(
    settings: config.Campaign, params: Point
) -> tuple[config.Campaign, dict[str, float]]:
    """Return a campaign with the one space, and the point in it, that a point of its chooses."""
    parts = settings.space.parts
    if not settings.space.spaces:
        return settings, dict(params)
    names = settings.space.names
    name = chosen(names, params)
    part = parts[names.index(name)]
    return settings.model_copy(update={"space": part}), own(name, params)


class SeveralSpaces:
    """One rectangle for several spaces: the score of each, then each one's dimensions with its name before.

    Args:
        spaces: Name → space, two or more.
    """

    def __init__(self, spaces: Mapping[str, SearchSpace]) -> None:
        self.spaces = dict(spaces)

    @cached_property
    def distributions(self) -> Mapping[str, FloatDistribution]:
        """Dimension → its range."""
        found = {SCORE + name: FloatDistribution(0.0, 1.0) for name in self.spaces}
        for name, space in self.spaces.items():
            found |= {f"{name}/{at}": each for at, each in space.distributions.items()}
        return found

    @cached_property
    def differentiable(self) -> tuple[str, ...]:
        """Those of all spaces."""
        return tuple(
            f"{name}/{at}" for name, space in self.spaces.items() for at in space.differentiable
        )

    @property
    def regions(self) -> Regions:
        """Those of each space."""
        return _SeveralRegions(self)

    @property
    def needs(self) -> Needs:
        """What any of the spaces needs; the models that each holds stand beside each other."""
        found = [space.needs for space in self.spaces.values()]
        return replace(
            found[0],
            prompts=any(one.prompts for one in found),
            scores=any(one.scores for one in found),
            whole_models=1 + sum(one.whole_models - 1 for one in found),
            feed_forwards=sum(one.feed_forwards for one in found),
            best_merge=any(one.best_merge for one in found),
            statistics=frozenset[str]().union(*(one.statistics for one in found)),
        )

    def candidate(
        self,
        params: Point,
        coefficients: Coefficients | None = None,
        best: Merge | None = None,
    ) -> Candidate:
        """Return the candidate of the space that a point chooses."""
        name = chosen(tuple(self.spaces), params)
        space = self.spaces[name]
        return space.candidate(own(name, params), coefficients if space.takes_rows else None, best)

    @property
    def takes_rows(self) -> bool:
        """Whether all spaces that have gradients take them."""
        smooth = [space for space in self.spaces.values() if space.differentiable]
        return bool(smooth) and all(space.takes_rows for space in smooth)

    def gradient(self, params: Point, gradients: Gradients) -> dict[str, float]:
        """Return the gradient by the dimensions of the chosen space; 0 by those of others."""
        name = chosen(tuple(self.spaces), params)
        found = self.spaces[name].gradient(own(name, params), gradients)
        return dict.fromkeys(self.differentiable, 0.0) | {
            f"{name}/{at}": value for at, value in found.items()
        }

    def baselines(self) -> tuple[Baseline, ...]:
        """Return parents and naive merges once, each with its points in all spaces that it lies in."""
        rows: dict[str, Baseline] = {}
        points: dict[str, list[dict[str, float]]] = {}
        for name, space in self.spaces.items():
            for one in space.baselines():
                rows.setdefault(one.key, one)
                own = [] if one.params is None else [self.whole(name, one.params)]
                points.setdefault(one.key, []).extend(own)
        return tuple(
            replace(row, params=next(iter(points[key]), None), also_at=tuple(points[key][1:]))
            for key, row in rows.items()
        )

    def first(self) -> tuple[dict[str, float], ...]:
        """Return those of each space, but no parents, and nothing that is made over the best merge."""
        known = [point for row in self.baselines() for point in (row.params, *row.also_at)]
        return tuple(
            point
            for name, space in self.spaces.items()
            if not space.needs.best_merge
            for point in (self.whole(name, one) for one in space.first())
            if point not in known
        )

    def taken_over(self, campaign: config.Campaign, params: Point) -> dict[str, float] | None:
        """Return the point most like one of an earlier campaign of one space, in the first that has one."""
        for name, space in self.spaces.items():
            found = space.taken_over(campaign, params)
            if found is not None:
                return self.whole(name, found)
        return None

    def whole(self, name: str, params: Point) -> dict[str, float]:
        """Return the point that chooses a space, and is `params` there and in the middle elsewhere."""
        found = {at: middle(one) for at, one in self.distributions.items()}
        found |= {SCORE + other: float(other == name) for other in self.spaces}
        return found | {f"{name}/{at}": value for at, value in params.items()}


@dataclass(frozen=True)
class _Whole(Regions):
    """A space that is one region: all of its numbers always count."""

    space: SearchSpace
    region: Region

    def first(self) -> tuple[Region, ...]:
        return (self.region,)

    def at(self, params: Point) -> Region:
        return self.region

    def neighbours(self, region: Region) -> tuple[Region, ...]:
        return ()

    def free(self, region: Region) -> tuple[str, ...]:
        return tuple(self.space.distributions)

    def differentiable(self, region: Region) -> tuple[str, ...]:
        return self.space.differentiable

    def default_point(self, region: Region) -> dict[str, float]:
        amidst = {name: middle(one) for name, one in self.space.distributions.items()}
        return dict(next(iter(self.space.first()), amidst))

    def moved_to(self, region: Region, params: Point, own: Point) -> dict[str, float]:
        return dict(params)

    def waits(self, arm: str) -> bool:
        return self.space.needs.best_merge


class _SeveralRegions(Regions):
    """The regions of all spaces: an arm is called by its space, and by its own name where it has one."""

    def __init__(self, whole: SeveralSpaces) -> None:
        self._whole = whole
        self._parts: dict[str, Regions] = {}
        for name, space in whole.spaces.items():
            if isinstance(space, Space):
                self._parts[name] = Choices(space)
            else:
                self._parts[name] = space.regions or _Whole(space, Region(""))

    def first(self) -> tuple[Region, ...]:
        return tuple(
            self._named(name, one) for name, part in self._parts.items() for one in part.first()
        )

    def at(self, params: Point) -> Region:
        name = chosen(tuple(self._parts), params)
        return self._named(name, self._parts[name].at(own(name, params)))

    def neighbours(self, region: Region) -> tuple[Region, ...]:
        name, part, inner = self._split(region)
        return tuple(self._named(name, one) for one in part.neighbours(inner))

    def free(self, region: Region) -> tuple[str, ...]:
        name, part, inner = self._split(region)
        return tuple(f"{name}/{at}" for at in part.free(inner))

    def differentiable(self, region: Region) -> tuple[str, ...]:
        name, part, inner = self._split(region)
        return tuple(f"{name}/{at}" for at in part.differentiable(inner))

    def default_point(self, region: Region) -> dict[str, float]:
        name, part, inner = self._split(region)
        return self._whole.whole(name, part.default_point(inner))

    def moved_to(self, region: Region, params: Point, place: Point) -> dict[str, float] | None:
        name, part, inner = self._split(region)
        if chosen(tuple(self._parts), params) != name:
            return None
        found = part.moved_to(inner, own(name, params), own(name, place))
        return None if found is None else self._whole.whole(name, found)

    def waits(self, arm: str) -> bool:
        return self._whole.spaces[arm.partition("/")[0]].needs.best_merge

    def _named(self, name: str, region: Region) -> Region:
        return replace(region, arm=f"{name}/{region.arm}".rstrip("/"))

    def _split(self, region: Region) -> tuple[str, Regions, Region]:
        name, _, arm = region.arm.partition("/")
        return name, self._parts[name], replace(region, arm=arm)
