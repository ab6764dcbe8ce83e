"""Methods, and kinds of candidates, as the arms of a bandit, each with a sampler over its own dimensions.

One distribution over everything follows the first best point into its method and never leaves it. Here each
method begins at its own best naive merge and at the best point of the leading one, moved over; kinds that are
made over the best merge begin once the others had their share of the first round. Successive
halving (Jamieson and Talwalkar 2016, 1502.07943) shares the trials out: after a round the better half of the
methods goes on, without those that a paired test on the search items says cannot win, and a round has twice
as many trials as the one before. So the winner has most of them. What goes on is told what was found by those
that the test cannot tell from the leader: they are as good at the same weights. Where subsets of the experts
are searched, the leader's best point is tried now and then with one expert less or more, and a subset that is
better is searched from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from evomerge.candidate import Coefficients
from evomerge.candidate.tables import Array
from evomerge.search.contributions import Contributions, p_worse
from evomerge.search.samplers.descent import Step
from evomerge.search.samplers.gradient import MOST_PATHS
from evomerge.search.samplers.sampler import Measurement, Params, Sampler
from evomerge.space import Region, Regions

ALPHA = 0.05
"""Probability, over all methods together, that one is given up that is as good as the leader on all items."""

SHARE = 1 / 6
"""Of the planned trials, spread evenly over the methods in the first round."""

_MOST_PROBES = 1 / 8  # of all trials

Build = Callable[[Params, Sequence[str]], Sampler]
"""(where an arm begins, its dimensions that have a gradient) → its sampler."""


class _OnePoint(Sampler):
    """Where no dimension counts."""

    def __init__(self) -> None:
        pass

    def propose(self, number: int, attempt: int = 0) -> dict[str, float]:
        """Return no numbers."""
        return {}


@dataclass(eq=False)
class _Arm:
    """A method, or a kind of candidates.

    Attributes:
        region: Where it begins: a method with all experts.
        names: The dimensions on which its models depend.
        default: Its point of the whole space where nothing is known.
        sampler: What searches them.
        asked: Trials asked for.
        told: Trials told.
        best: Its best point of the whole space, and what came of it.
        seen: All its points, and what came of them.
        taken_over: Round in which the leader's best point was tried here last; -1: never.
        out: It was given up.
        waits: Its candidates are made over the best merge.
    """

    region: Region
    names: tuple[str, ...]
    default: Params
    sampler: Sampler
    asked: int = 0
    told: int = 0
    best: tuple[Params, Measurement] | None = None
    seen: list[tuple[Params, Measurement]] = field(default_factory=list)
    taken_over: int = -1
    out: bool = False
    waits: bool = False

    @property
    def loss(self) -> float:
        """The loss at the best point; infinite before there is one."""
        return float("inf") if self.best is None else self.best[1].loss

    @property
    def is_over(self) -> bool:
        """Whether its one point was asked for."""
        return not self.names and self.asked > 0

    @property
    def point(self) -> Params:
        """Where its search is: the best point; its subset of the experts is the arm's."""
        return self.default if self.best is None else self.best[0]

    def lower(self, params: Params) -> dict[str, float]:
        """Return the coordinates of a point in its own dimensions."""
        return {name: params[name] for name in self.names}

    def lift(self, values: Params) -> dict[str, float]:
        """Return the point of the whole space for values of its own dimensions."""
        return {**self.point, **values}

    def note(self, params: Params, result: Measurement | None) -> bool:
        """Keep the best point; tell whether this one is it."""
        if result is None:
            return False
        self.seen.append((dict(params), result))
        if result.loss >= self.loss:
            return False
        self.best = self.seen[-1]
        return True


def _coefficients(arm: _Arm) -> Coefficients | None:
    return None if arm.best is None else arm.best[1].coefficients


class Bandit(Sampler):
    """A sampler for each method, and what shares the trials out among them.

    Args:
        regions: Where to search.
        build: Makes the sampler of an arm.
        trials: What is planned for.
        contributions: Takes outcomes apart by items, for the tests.
        several: Several objectives: every method may hold a part of the front, so all get the same share.
    """

    def __init__(
        self,
        regions: Regions,
        build: Build,
        trials: int,
        contributions: Contributions,
        *,
        several: bool = False,
    ) -> None:
        self._regions, self._contributions, self._several = regions, contributions, several
        self._arms = [self._arm(region, build) for region in regions.first()]
        self.needs_gold = any(arm.sampler.needs_gold for arm in self._arms)
        self._round, self._share = 0, max(1, int(trials * SHARE / len(self._arms)))
        self._quota = self._share  # trials of each arm by the end of this round
        self._in_flight: dict[int, tuple[_Arm, bool]] = {}  # trial → arm, whether its sampler's own
        self._descents: list[tuple[_Arm, int]] = []  # → arm, and which descent of its sampler
        self._probed: dict[Region, int] = {}  # → `_doublings` of its arm then
        self._probes = 0

    def propose(self, number: int, attempt: int = 0) -> dict[str, float]:
        """Return a point of the arm whose turn it is."""
        arm = self._turn()
        point = None if attempt else self._taken_over(arm) or self._probe(arm)
        if point is None:
            point = arm.lift(arm.sampler.propose(number, attempt))
        return point

    def asked(self, number: int, params: Params) -> None:
        """Note that a trial is being scored."""
        arm = self._arm_of(params)
        region = self._regions.at(params)
        if params == self._taken_over(arm):
            arm.taken_over = self._round
            own = False
        else:
            own = region == self._regions.at(arm.point)
            if not own:
                self._probed[region] = self._doublings(arm)
                self._probes += 1
        if own:
            arm.sampler.asked(number, arm.lower(params))
        arm.asked += 1
        self._in_flight[number] = arm, own

    def told(self, number: int, params: Params, result: Measurement | None) -> None:
        """Take the result of a trial."""
        arm, own = self._in_flight.pop(number)
        arm.told += 1
        better = arm.note(params, result)
        if own:
            arm.sampler.told(number, arm.lower(params), result)
        elif result is not None:
            arm.sampler.known(arm.lower(params), result)
            if better:
                arm.sampler.restart()
        self._end_round()

    def known(self, params: Params, result: Measurement) -> None:
        """Take a point that no trial asked for; one without all experts says nothing of where to begin."""
        arm = self._arm_of(params)
        if self._regions.at(params) == arm.region:
            arm.note(params, result)
            arm.sampler.known(arm.lower(params), result)

    def path(self, number: int) -> Sequence[int]:
        """Return the trials of the descent that a trial is a point of, whichever arm's."""
        found = (arm.sampler.path(number) for arm in self._arms)
        return next((trials for trials in found if trials), ())

    def next_step(self, *, begin: bool = True) -> Step | None:
        """Return a step for an idle worker; None: ask for a trial instead.

        Descents of all arms count as one sequence; the leader's comes first, then one of each other arm.
        """
        arms = self._live()
        if any(arm.sampler.is_due for arm in arms):
            return None
        for beginning in (False, True) if begin else (False,):
            for arm in sorted(arms, key=lambda one: (self._begun(one), one.loss)):
                if arm.waits and not arm.sampler.needs_gold:
                    continue
                if beginning and self._taken_over(arm) is not None and arm.asked < self._quota:
                    return None  # its descent is to begin at the better of two points
                if beginning and self._must_not_begin(arm):
                    continue
                step = arm.sampler.next_step(begin=beginning)
                if step is not None:
                    place = (arm, step.descent)
                    known = place in self._descents
                    index = self._descents.index(place) if known else len(self._descents)
                    return replace(step, descent=index, params=arm.lift(step.params))
        return None

    def step(
        self, descent: int, number: int, params: Params, items: Mapping[str, tuple[int, ...]]
    ) -> Step:
        """Return a step as it was asked for before."""
        arm, own = self._descent(descent, params)
        step = arm.sampler.step(own, number, arm.lower(params), items)
        return replace(step, descent=descent, params=dict(params))

    def step_asked(self, step: Step) -> None:
        """Note that a step is being scored."""
        arm, own = self._descent(step.descent, step.params)
        if step.descent == len(self._descents):
            self._descents.append((arm, own))
        arm.sampler.step_asked(replace(step, descent=own, params=arm.lower(step.params)))

    def step_told(
        self,
        descent: int,
        gradients: Mapping[str, float] | None,
        rows: Mapping[str, Array] | None = None,
    ) -> None:
        """Take the gradient of the step that a descent waits for; None: it failed."""
        arm, own = self._descents[descent]
        arm.sampler.step_told(own, gradients, rows)

    def state(self, descent: int) -> bytes | None:
        """Return what the gradients by rows made of a descent."""
        arm, own = self._descents[descent]
        return arm.sampler.state(own)

    def restore(self, descent: int, state: bytes) -> None:
        """Take back the `state` of a descent."""
        arm, own = self._descents[descent]
        arm.sampler.restore(own, state)

    def coefficients(self, params: Params) -> Coefficients | None:
        """Return those of the arm's sampler; of a point that is moved over or probed, of where it is from."""
        arm = self._arm_of(params)
        leader = self._leader()
        if params == self._taken_over(arm) and leader.best is not None:
            moved = self._regions.moved_to(arm.region, leader.best[0], arm.point)
            return None if moved is None else _coefficients(leader)
        if self._regions.at(params) != self._regions.at(arm.point):
            return _coefficients(arm)
        return arm.sampler.coefficients(arm.lower(params))

    def _descent(self, descent: int, params: Params) -> tuple[_Arm, int]:
        """Return the arm of a descent, and which of its sampler's descents it is."""
        if descent < len(self._descents):
            return self._descents[descent]
        arm = self._arm_of(params)
        return arm, self._begun(arm)

    def _begun(self, arm: _Arm) -> int:
        return sum(one is arm for one, _ in self._descents)

    def _must_not_begin(self, arm: _Arm) -> bool:
        """Whether the result of a point is to come first, or enough descents were begun."""
        begun = self._begun(arm)
        awaited = begun == 0 and arm.told < arm.asked
        return awaited or (begun > 0 and len(self._descents) >= MOST_PATHS)

    def _arm(self, region: Region, build: Build) -> _Arm:
        names = self._regions.free(region)
        default, waits = self._regions.default_point(region), self._regions.waits(region.arm)
        start = {name: default[name] for name in names}
        sampler = build(start, self._regions.differentiable(region)) if names else _OnePoint()
        return _Arm(region, names, default, sampler, waits=waits)

    def _arm_of(self, params: Params) -> _Arm:
        name = self._regions.at(params).arm
        return next(arm for arm in self._arms if arm.region.arm == name)

    def _live(self) -> list[_Arm]:
        return [arm for arm in self._arms if not (arm.out or arm.is_over)]

    def _leader(self) -> _Arm:
        """Return the arm with the best point, the first of equals."""
        return min(self._arms, key=lambda arm: arm.loss)

    def _turn(self) -> _Arm:
        """Return the arm that is to try something."""
        live = self._live()
        due = [arm for arm in live if arm.sampler.is_due]
        waiting = due or [arm for arm in live if self._several or arm.asked < self._quota]
        if not due and any(arm.waits for arm in waiting):  # for the best of the others
            first = [arm for arm in waiting if not (arm.waits or self._had(arm, self._share))]
            waiting = first or waiting
        if waiting:
            return min(waiting, key=lambda arm: arm.asked)
        return min(live, key=lambda arm: arm.loss, default=self._leader())

    def _taken_over(self, arm: _Arm) -> dict[str, float] | None:
        """Return the leader's best point in another arm, once a round: None where it was tried there."""
        leader = self._leader()
        if arm.taken_over == self._round or arm is leader or leader.best is None:
            return None
        if arm.sampler.is_descending:
            return None
        found = self._regions.moved_to(arm.region, leader.best[0], arm.point)
        if found is None:
            found = dict(arm.point)
        return None if arm.best is not None and found == arm.point else found

    def _probe(self, arm: _Arm) -> dict[str, float] | None:
        """Return the leader's best point with one expert less or more, if it is time to try it."""
        if arm is not self._leader() or arm.best is None:
            return None
        asked = sum(one.asked for one in self._arms)
        early = not self._had(arm, self._share) or self._probes >= _MOST_PROBES * asked
        if early and not arm.is_over:
            return None
        for region in self._regions.neighbours(self._regions.at(arm.point)):
            if self._probed.get(region, -1) < self._doublings(arm):
                subset = self._regions.default_point(region)
                return {
                    **arm.point,
                    **{name: subset[name] for name in subset.keys() - {*arm.names}},
                }
        return None

    def _doublings(self, arm: _Arm) -> int:
        """All neighbours are tried again each time that an arm has had twice as many trials."""
        return (arm.told // self._share).bit_length()

    def _had(self, arm: _Arm, quota: int) -> bool:
        """Whether an arm had so many trials, and is at the end of a descent if it is to descend."""
        descends = arm.sampler.needs_gold
        at_end = not descends or (self._begun(arm) > 0 and not arm.sampler.is_descending)
        return arm.told >= quota and at_end

    def _end_round(self) -> None:
        """Once every arm had its trials, let the better half go on."""
        live = self._live()
        if self._several or len(live) < 2 or not all(self._had(arm, self._quota) for arm in live):
            return
        leader, *others = sorted(live, key=lambda arm: arm.loss)
        alike = [arm for arm in others if not self._is_behind(arm, leader)]
        for place, arm in enumerate(others, 1):
            arm.out = 2 * place >= len(live) or arm not in alike
        for arm in alike:
            if arm.out:
                self._hand_over(arm, [leader, *(one for one in alike if not one.out)])
        self._round += 1
        self._quota += self._share * 2**self._round

    def _hand_over(self, arm: _Arm, heirs: Sequence[_Arm]) -> None:
        """Tell the samplers that go on what came of an arm's points, at the same place of their own."""
        for heir in heirs:
            experts = self._regions.at(heir.point).experts
            had = [params for params, _ in heir.seen]
            for params, result in arm.seen:
                moved = self._regions.moved_to(heir.region, params, heir.point)
                if moved is None or moved in had:
                    continue
                if self._regions.at(params).experts == experts:
                    heir.sampler.known(heir.lower(moved), result)

    def _is_behind(self, arm: _Arm, leader: _Arm) -> bool:
        """Compare the best points by a paired test over the items."""
        if arm.best is None or leader.best is None:
            return leader.best is not None
        outcomes = [best[1].outcome for best in (arm.best, leader.best)]
        one, other = [None if each is None else self._contributions(each) for each in outcomes]
        if one is None or other is None or one.shape != other.shape:
            return False
        return p_worse(one, other) <= ALPHA / max(1, len(self._arms) - 1)
