"""From coarse to fine: the first part of the trials in a space of few groups, the rest around their best."""

from __future__ import annotations

from collections.abc import Callable

from evomerge.search.sampler import Params, Result, Sampler
from evomerge.space import Space

SHARE = 1 / 3
"""Of the budget of trials, spent in the coarse space."""


class CoarseSampler:
    """One sampler in the coarse space, then one in the space itself that knows all that was found.

    Every trial is a point of the space itself, in which equal groups take equal values at first.

    Args:
        space: With `coarse` set.
        trials: The budget.
        coarse: The sampler in the coarse space.
        fine: Makes the sampler in the space itself.
    """

    def __init__(
        self, space: Space, trials: int, coarse: Sampler, fine: Callable[[], Sampler]
    ) -> None:
        self._space, self._coarse, self._build_fine = space, coarse, fine
        self._switch = max(1, int(trials * SHARE))
        self._fine: Sampler | None = None
        self._heard: list[tuple[dict[str, float], Result]] = []
        self._in_coarse: dict[int, dict[str, float]] = {}

    def propose(self, number: int, attempt: int = 0) -> dict[str, float]:
        """Return a point: one of the coarse space, lifted, or one of the space itself."""
        if number < self._switch:
            return self._space.lift(self._coarse.propose(number, attempt))
        return self._going_on().propose(number, attempt)

    def asked(self, number: int, params: Params) -> None:
        """Note that a trial is in flight."""
        if number < self._switch:
            self._in_coarse[number] = self._space.lower(params)
            self._coarse.asked(number, self._in_coarse[number])
        else:
            self._going_on().asked(number, params)

    def told(self, number: int, params: Params, result: Result | None) -> None:
        """Take the result of a trial; one of the first part that comes late is known to both samplers."""
        if number in self._in_coarse:
            self._coarse.told(number, self._in_coarse[number], result)
            if result is not None:
                self._note(params, result)
        else:
            self._going_on().told(number, params, result)

    def known(self, params: Params, result: Result) -> None:
        """Take a point that no trial asked for."""
        self._coarse.known(self._space.lower(params), result)
        self._note(params, result)

    def _note(self, params: Params, result: Result) -> None:
        self._heard.append((dict(params), result))
        if self._fine is not None:
            self._fine.known(params, result)

    def _going_on(self) -> Sampler:
        if self._fine is None:
            self._fine = self._build_fine()
            for params, result in self._heard:
                self._fine.known(params, result)
        return self._fine
