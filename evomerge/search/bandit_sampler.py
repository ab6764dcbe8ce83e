"""Methods and subsets of the experts as the arms of a bandit, each with a sampler of its own.

One distribution over everything follows the first best point into its method and never leaves it. Here
each method begins with all experts, at its own best naive merge and at the best point of the others, moved
over. It gets a share of the trials before anything narrows; then most go to the arm that leads, one of four
(of eight in the second half) to another one in turn, until a paired test on the search items says that this
one cannot win: successive elimination (Even-Dar, Mannor and Mansour 2006), by tests. Now and then the
leader's best point is tried with one expert less or more; a subset takes part once such a trial was the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log2

from evomerge.search.arm import Arm, Best, Build, arm_of
from evomerge.search.contributions import Contributions, p_worse
from evomerge.search.sampler import Params, Result
from evomerge.space import (
    Choice,
    Space,
    choice_of,
    default_point,
    first_choices,
    moved_to,
    neighbours,
)

ALPHA = 0.05
"""Probability, over all arms together, that one is given up that is as good as the leader on all items."""

SHARE = 1 / 6
"""Of the planned trials, spread evenly over the methods before the search narrows."""

_OTHERS_EARLY, _OTHERS_LATE = 4, 8  # one trial of so many is another arm's than the leader's
_TAKE_OVER_EVERY = 4
_MOST_PROBES = 1 / 8  # of all trials


class BanditSampler:
    """A sampler for each method and subset, and what shares the trials out among them.

    Args:
        space: Where to search.
        build: Makes the sampler of an arm.
        trials: What is planned for.
        contributions: Takes outcomes apart by items, for the tests.
        several: Several objectives: every method may hold a part of the front, so all get the same share.
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
        self._space, self._build, self._several = space, build, several
        self._contributions = contributions
        self._arms = [Arm(space, one, build, is_open=True) for one in first_choices(space)]
        self._planned = trials
        self._share = max(1, int(trials * SHARE / len(self._arms)))
        self._running: dict[
            int, tuple[Arm, bool]
        ] = {}  # trial → arm, and whether its sampler's own
        self._probed: dict[Choice, int] = {}  # → in which round
        self._probes = 0
        self._later: list[tuple[Params, Result]] = []  # known points of arms that do not exist
        self._p_values: dict[tuple[Best, Best], float] = {}

    def propose(self, number: int, attempt: int = 0) -> dict[str, float]:
        """Return a point of the arm whose turn it is."""
        arm = self._turn()
        point = None if attempt else self._taken_over(arm) or self._probe(arm)
        return arm.propose(number, attempt) if point is None else point

    def asked(self, number: int, params: Params) -> None:
        """Note that a trial is in flight."""
        turn, leader = self._turn(), self._leader()
        is_taken_over, is_probe = params == self._taken_over(turn), params == self._probe(turn)
        arm = self._arm(params)  # which may be new, and lead
        own = arm is turn and not is_taken_over
        if is_taken_over:
            turn.take_over(leader)
        elif is_probe:
            self._probed[arm.choice] = self._round(turn)
            self._probes += 1
            if not arm.asked:
                arm.inherited = turn.effort
        if own:
            arm.asked_for(number, params)
        arm.asked += 1
        self._running[number] = (arm, own)

    def told(self, number: int, params: Params, result: Result | None) -> None:
        """Take the result of a trial."""
        arm, own = self._running.pop(number)
        arm.tell(number, params, result, own=own)
        leader = self._leader()
        leader.is_open, leader.out = True, False
        self._give_up(leader)

    def known(self, params: Params, result: Result) -> None:
        """Take a point that no trial asked for."""
        arm = arm_of(self._space, self._arms, params)
        if arm is None:
            self._later.append((dict(params), result))
        else:
            arm.know(params, result)

    def _arm(self, params: Params) -> Arm:
        """Return the arm of a point; a new one, which does not take part yet, where there is none."""
        arm = arm_of(self._space, self._arms, params)
        if arm is None:
            arm = Arm(self._space, choice_of(self._space, params), self._build, is_open=False)
            for point, result in self._later:
                if choice_of(self._space, point) == arm.choice:
                    arm.know(point, result)
            self._arms.append(arm)
        return arm

    def _leader(self) -> Arm:
        """Return the arm with the best point, the first of equals."""
        return min(self._arms, key=lambda arm: arm.loss)

    def _live(self) -> list[Arm]:
        return [arm for arm in self._arms if arm.is_open and not (arm.out or arm.is_over)]

    def _turn(self) -> Arm:
        """Return the arm that is to try something."""
        live, leader = self._live(), self._leader()
        waiting = [arm for arm in live if self._several or arm.asked < self._share]
        asked = sum(arm.asked for arm in self._arms)
        every = _OTHERS_EARLY if asked < self._planned / 2 else _OTHERS_LATE
        if not waiting and (asked % every == 0 or leader not in live):
            waiting = [arm for arm in live if arm is not leader]
        return min(waiting, key=lambda arm: arm.asked, default=leader)

    def _had_share(self, arm: Arm) -> bool:
        """Whether an arm had so many trials that it may be given up."""
        return arm.told >= self._share

    def _taken_over(self, arm: Arm) -> dict[str, float] | None:
        """Return the leader's best point in another arm, if it is time to try it there."""
        is_time = arm.asked % _TAKE_OVER_EVERY == 0 and not arm.is_over
        return arm.taken_over(self._leader()) if is_time else None

    def _probe(self, arm: Arm) -> dict[str, float] | None:
        """Return the leader's best point with one expert less or more, if it is time to try it."""
        if arm is not self._leader() or arm.best is None:
            return None
        asked = sum(one.asked for one in self._arms)
        early = not self._had_share(arm) or self._probes >= _MOST_PROBES * asked
        if early and not arm.is_over:
            return None
        for choice in neighbours(self._space, arm.choice):
            if self._probed.get(choice, -1) < self._round(arm) and not self._is_open(choice):
                own = default_point(self._space, choice)
                return moved_to(self._space, choice, arm.best.params, own)
        return None

    def _round(self, arm: Arm) -> int:
        """All neighbours are tried again each time that an arm has had twice as many trials."""
        return int(log2(max(1.0, arm.told / self._share)))

    def _is_open(self, choice: Choice) -> bool:
        return any(arm.is_open and arm.choice == choice for arm in self._arms)

    def _give_up(self, leader: Arm) -> None:
        """Leave out the arms that paired tests say cannot win."""
        if self._several or not self._had_share(leader):
            return
        for arm in self._live():
            if arm is not leader and self._had_share(arm) and self._is_behind(arm, leader):
                arm.out = True

    def _is_behind(self, arm: Arm, leader: Arm) -> bool:
        """Compare the best points of as many trials: the best of more would be better by luck alone."""
        effort = min(arm.effort, leader.effort)
        ours, best = arm.after(effort), leader.after(effort)
        if best is None or (ours is not None and ours.result.loss <= best.result.loss):
            return False
        if ours is None or (ours.result.outcome is not None and ours.result.outcome.pruned):
            return True  # all failed, or a race gave them all up
        return self._p_worse(ours, best) <= ALPHA / max(1, len(self._arms) - 1)

    def _p_worse(self, one: Best, other: Best) -> float:
        if (one, other) not in self._p_values:
            self._p_values[one, other] = self._test([one.result, other.result])
        return self._p_values[one, other]

    def _test(self, results: Sequence[Result]) -> float:
        items = [
            None if result.outcome is None else self._contributions(result.outcome)
            for result in results
        ]
        one, other = items
        if one is None or other is None or one.shape != other.shape:
            return 1.0
        return p_worse(one, other)
