"""One arm of the bandit: a merge method and a subset of the experts, with a sampler of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from optuna.distributions import FloatDistribution

from evomerge.search.sampler import Params, Restartable, Result, Sampler
from evomerge.space import Choice, Space, choice_of, default_point, differentiable, free, moved_to

Build = Callable[[Mapping[str, FloatDistribution], Sequence[str]], Sampler]
"""(dimensions of an arm, those of them that have a gradient) → its sampler."""


@dataclass(frozen=True, eq=False)
class Best:
    """The best point of an arm so far.

    Attributes:
        params: A point of the whole space.
        result: What came of it.
    """

    params: Params
    result: Result


class Arm:
    """A search within one choice: its sampler sees only the dimensions on which the models depend.

    Attributes:
        choice: The method, and who takes part.
        names: Its dimensions.
        sampler: What searches them; None: there are none, and so there is one point.
        asked: Trials asked for.
        is_open: It takes part; a subset of the experts that was tried once does so when that trial was best.
        out: Paired tests say that it cannot win.
        bests: Best point after 0, 1, 2, … trials were told; None before one was scored.
        inherited: Trials told of the arm from whose best point this one begins.

    Args:
        space: The whole space.
        choice: The method, and who takes part.
        build: Makes the sampler.
        is_open: Whether it takes part from the beginning.
    """

    def __init__(self, space: Space, choice: Choice, build: Build, *, is_open: bool) -> None:
        self.choice, self.names = choice, free(space, choice)
        self._space, self._default = space, default_point(space, choice)
        chosen = {name: space.distributions[name] for name in self.names}
        self.sampler = build(chosen, differentiable(space, choice)) if chosen else None
        self.asked, self.is_open, self.out = 0, is_open, False
        self.bests: list[Best | None] = [None]
        self.inherited = 0
        self._moved: Params | None = None  # the last point that was taken over

    @property
    def best(self) -> Best | None:
        """The best point so far."""
        return self.bests[-1]

    @property
    def loss(self) -> float:
        """The loss at the best point; infinite before there is one."""
        return float("inf") if self.best is None else self.best.result.loss

    @property
    def told(self) -> int:
        """How many trials were told."""
        return len(self.bests) - 1

    @property
    def effort(self) -> int:
        """How many trials led to its best point."""
        return self.inherited + self.told

    def after(self, effort: int) -> Best | None:
        """Return the best point after so many trials, those of the arm before it included."""
        return self.bests[max(0, effort - self.inherited)]

    @property
    def is_over(self) -> bool:
        """Whether its one point was asked for."""
        return self.sampler is None and self.asked > 0

    def lower(self, params: Params) -> dict[str, float]:
        """Return the coordinates of a point in the arm's own dimensions."""
        return {name: params[name] for name in self.names}

    def lift(self, values: Params) -> dict[str, float]:
        """Return the point of the whole space for values of the arm's own dimensions."""
        return {**self._default, **values}

    def propose(self, number: int, attempt: int) -> dict[str, float]:
        """Return a point of its sampler."""
        return self.lift({} if self.sampler is None else self.sampler.propose(number, attempt))

    def taken_over(self, leader: Arm) -> dict[str, float] | None:
        """Return the point most like the leader's best one; None where that was tried, or is no news."""
        if leader is self or leader.best is None or leader.best.params == self._moved:
            return None
        own = self._default if self.best is None else self.best.params
        point = self.lift(self.lower(moved_to(self._space, self.choice, leader.best.params, own)))
        return None if self.best is not None and point == self.lift(self.lower(own)) else point

    def take_over(self, leader: Arm) -> None:
        """Remember that the leader's best point was tried here."""
        self._moved = None if leader.best is None else leader.best.params

    def asked_for(self, number: int, params: Params) -> None:
        """Note that its sampler's trial is in flight."""
        if self.sampler is not None:
            self.sampler.asked(number, self.lower(params))

    def tell(self, number: int, params: Params, result: Result | None, *, own: bool) -> None:
        """Take the result of a trial.

        Args:
            number: Of the trial.
            params: A point of the whole space.
            result: None: it failed.
            own: Its sampler proposed the point; else the sampler gets to know it.
        """
        before = self.best
        self._note(params, result)
        if self.sampler is None:
            return
        if own:
            self.sampler.told(number, self.lower(params), result)
        elif result is not None:
            self.sampler.known(self.lower(params), result)
            if self.best is not before and isinstance(self.sampler, Restartable):
                self.sampler.restart()

    def know(self, params: Params, result: Result) -> None:
        """Take a point that no trial asked for."""
        if result.loss < self.loss:
            self.bests[-1] = Best(params, result)
        if self.sampler is not None:
            self.sampler.known(self.lower(params), result)

    def _note(self, params: Params, result: Result | None) -> None:
        better = result is not None and result.loss < self.loss
        self.bests.append(Best(params, result) if better and result is not None else self.best)


def arm_of(space: Space, arms: Sequence[Arm], params: Params) -> Arm | None:
    """Return the arm to which a point belongs, if there is one."""
    choice = choice_of(space, params)
    return next((arm for arm in arms if arm.choice == choice), None)
