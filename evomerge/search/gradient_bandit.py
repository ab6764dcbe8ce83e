"""The bandit over methods and subsets where some of them have gradients: descents in each such arm first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from evomerge.search.arm import Arm, Build
from evomerge.search.bandit_sampler import BanditSampler
from evomerge.search.contributions import Contributions
from evomerge.search.descent import Step
from evomerge.search.descent_sampler import MOST_PATHS, DescentSampler
from evomerge.search.sampler import Params
from evomerge.space import Space


class GradientBandit(BanditSampler):
    """Descents of all arms count as one sequence; the leader's comes first, then one of each other arm.

    An arm has had its share once its first descent is over. Arms that are not given up by then follow
    further ones, as many as their sampler would alone, and then search on around their best points.
    """

    def __init__(
        self,
        space: Space,
        build: Build,
        trials: int,
        contributions: Contributions,
        *,
        several: bool = False,
    ) -> None:
        super().__init__(space, build, trials, contributions, several=several)
        self._descents: list[tuple[Arm, int]] = []  # → arm, and which descent of its sampler

    def next_step(self) -> Step | None:
        """Return a step for an idle worker; None: ask for a trial instead."""
        if self._due() is not None:
            return None
        for arm in self._live():
            sampler = _descending(arm)
            step = None if sampler is None else sampler.idle_step()
            if step is not None:
                return self._lifted(arm, step)
        arm_to_begin = self._to_begin()
        if arm_to_begin is None or self._taken_over(arm_to_begin) is not None:
            return None
        sampler = _descending(arm_to_begin)
        return None if sampler is None else self._lifted(arm_to_begin, sampler.first_step())

    def step(
        self, descent: int, number: int, params: Params, items: Mapping[str, tuple[int, ...]]
    ) -> Step:
        """Return a step as it was asked for before."""
        arm, own = self._descent(descent, params)
        sampler = _descending(arm)
        assert sampler is not None  # only such arms ask for steps
        step = sampler.step(own, number, arm.lower(params), items)
        return replace(step, descent=descent, params=dict(params))

    def step_asked(self, step: Step) -> None:
        """Note that a step is in flight."""
        arm, own = self._descent(step.descent, step.params)
        if step.descent == len(self._descents):
            self._descents.append((arm, own))
        sampler = _descending(arm)
        assert sampler is not None  # only such arms ask for steps
        sampler.step_asked(replace(step, descent=own, params=arm.lower(step.params)))

    def step_told(self, descent: int, gradients: Mapping[str, float] | None) -> None:
        """Take the gradient of the step in flight of a descent; None: it failed."""
        arm, own = self._descents[descent]
        sampler = _descending(arm)
        assert sampler is not None  # only such arms ask for steps
        sampler.step_told(own, gradients)

    def _descent(self, descent: int, params: Params) -> tuple[Arm, int]:
        if descent < len(self._descents):
            return self._descents[descent]
        arm = self._arm(params)
        sampler = _descending(arm)
        return arm, 0 if sampler is None else sampler.descents

    def _lifted(self, arm: Arm, step: Step) -> Step:
        place = (arm, step.descent)
        known = place in self._descents
        descent = self._descents.index(place) if known else len(self._descents)
        return replace(step, descent=descent, params=arm.lift(step.params))

    def _turn(self) -> Arm:
        due = self._due()
        if due is not None:
            return due
        arm = self._to_begin()
        return super()._turn() if arm is None or self._taken_over(arm) is None else arm

    def _due(self) -> Arm | None:
        """Return an arm with a checkpoint to be scored."""
        for arm in self._live():
            sampler = _descending(arm)
            if sampler is not None and sampler.is_due:
                return arm
        return None

    def _to_begin(self) -> Arm | None:
        """Return the arm for another descent: one with the fewest, of those the best."""
        found = [(arm, sampler) for arm in self._live() if (sampler := _descending(arm))]
        ready = [(arm, sampler) for arm, sampler in found if not self._is_awaited(arm, sampler)]
        idle = len(self._descents) < MOST_PATHS and any(one.is_descending for _, one in found)
        wanted = [
            (sampler.descents, arm.loss, place)
            for place, (arm, sampler) in enumerate(ready)
            if sampler.descents < sampler.in_turn or idle
        ]
        return ready[min(wanted)[2]][0] if wanted else None

    @staticmethod
    def _is_awaited(arm: Arm, sampler: DescentSampler) -> bool:
        """Whether the point from which an arm's first descent shall begin is being scored."""
        return sampler.descents == 0 and arm.told < arm.asked

    def _had_share(self, arm: Arm) -> bool:
        sampler = _descending(arm)
        if sampler is None:
            return super()._had_share(arm)
        return sampler.descents > 0 and not sampler.is_descending

    def _taken_over(self, arm: Arm) -> dict[str, float] | None:
        sampler = _descending(arm)
        is_busy = sampler is not None and sampler.is_descending
        return None if is_busy else super()._taken_over(arm)

    def _probe(self, arm: Arm) -> dict[str, float] | None:
        return super()._probe(arm) if self._had_share(arm) else None


def _descending(arm: Arm) -> DescentSampler | None:
    return arm.sampler if isinstance(arm.sampler, DescentSampler) else None
