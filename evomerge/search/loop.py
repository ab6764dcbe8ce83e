"""The search loop: every worker busy, every result on disk before the next candidate is asked for."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable

from evomerge.candidate.trial import Gradients, Outcome
from evomerge.config import Campaign
from evomerge.errors import CampaignStopped
from evomerge.progress import Display, Pace
from evomerge.search.study import Study
from evomerge.search.tally import Ended
from evomerge.store import Store
from evomerge.workers import Pool
from evomerge.workers.pool import Work

FIRST_CANDIDATES = 5
"""A campaign whose first candidates all fail alike stops and says why."""

AHEAD = 4
"""One candidate is asked for ahead for so many workers, so that none waits while results are written; more
where some do wait: many workers whose work is short, at most one candidate for each."""

AT_ONCE = 8
"""Candidates asked for together while workers are idle: these begin before the next ones are drawn."""


def explore(campaign: Campaign, store: Store, study: Study, pool: Pool, display: Display) -> None:
    """Search until the budget is spent, and record and say what ended it.

    Args:
        campaign: Its budget.
        store: Of the study.
        study: What to try next.
        pool: Who tries it.
        display: Shows progress.

    Raises:
        CampaignStopped: The first candidates all failed alike.
    """
    store.end(None)
    try:
        ended = _explored(campaign, store, study, pool, display)
    except (KeyboardInterrupt, CampaignStopped) as stopped:
        interrupted = isinstance(stopped, KeyboardInterrupt)
        store.end(Ended.INTERRUPTED if interrupted else Ended.FAILURES)
        raise
    store.end(ended)
    display.say(f"search ended: {ended}")


def _explored(
    campaign: Campaign, store: Store, study: Study, pool: Pool, display: Display
) -> Ended:
    """Return what ended the search."""
    hours = campaign.search.hours
    deadline = None if hours is None else time.monotonic() + 3600 * hours
    tally, deterministic = study.tally, campaign.search.deterministic
    pace = Pace(display, "search", campaign.search.trials, tally.told, tally.failed)
    checked = tally.told > FIRST_CANDIDATES
    line = _Line(pool, study.interrupted(), most=1 if deterministic else pool.size)
    ahead = 0 if deterministic else pool.size // AHEAD
    while True:
        line.submit()
        in_time = deadline is None or time.monotonic() < deadline
        gave_all = in_time and _ask(study, line, pool, ahead)
        if line.is_over:
            _announce(display, study)  # what was answered without work
            return study.ended or (Ended.ITEMS if in_time else Ended.HOURS)
        study.tell_many(line.take())
        if not deterministic:
            line.gather()
        if ahead and gave_all:  # else it is the study that makes them wait
            ahead = min(pool.size, ahead + pool.free)
        _announce(display, study)
        pace.reach(tally.told, tally.failed, tally.best_value)
        if not checked and tally.told >= FIRST_CANDIDATES:
            checked = True
            _stop_if_all_fail(store)


def _announce(display: Display, study: Study) -> None:
    for told in study.take_news():
        outcome, values = told.outcome, told.values
        display.event(
            "trial",
            number=told.entry.number,
            state="failed" if values is None else "pruned" if told.pruned else "complete",
            **({"value": values[0]} if values and len(values) == 1 else {"values": values}),
            seconds=outcome.cost.merge_seconds + outcome.cost.score_seconds,
            failure=None if outcome.failure is None else outcome.failure.reason,
        )


def _ask(study: Study, line: _Line, pool: Pool, ahead: int) -> bool:
    """Ask for what idle workers wait for, a few at a time, then ahead; tell whether there was enough."""
    while True:
        wanted = max(0, pool.free + ahead - len(line.waiting))
        some = min(wanted, AT_ONCE) if pool.free else wanted
        asked = study.ask_many(some)
        line.extend(asked)
        if some == wanted or len(asked) < some:
            return len(asked) == some


class _Line:
    """Jobs that wait for a worker, and results that wait to be told.

    Args:
        pool: The workers.
        jobs: Wait from the beginning.
        most: Results taken at once.
    """

    def __init__(self, pool: Pool, jobs: Iterable[Work], most: int) -> None:
        self.waiting = deque(jobs)
        self._pool, self._most = pool, most
        self._running = 0
        self._finished: list[tuple[Work, Outcome | Gradients]] = []

    @property
    def is_over(self) -> bool:
        """Whether nothing is in flight or to be told."""
        return not (self._running or self._finished)

    def extend(self, jobs: Iterable[Work]) -> None:
        """Put jobs in line."""
        self.waiting.extend(jobs)
        self.submit()

    def submit(self) -> None:
        """Give waiting jobs to idle workers."""
        while self.waiting and self._pool.free:
            self._pool.submit(self.waiting.popleft())
            self._running += 1

    def take(self) -> list[tuple[Work, Outcome | Gradients]]:
        """Return results, waiting for one if there is none; idle workers go on before anything is written."""
        if not self._finished:
            self._note(self._pool.next())
        self.gather()
        taken, self._finished = self._finished, []
        return taken

    def gather(self) -> None:
        """Take what is finished, and let those workers go on."""
        while self._running and len(self._finished) < self._most:
            try:
                self._note(self._pool.next(timeout=0))
            except TimeoutError:
                break
        self.submit()

    def _note(self, result: tuple[Work, Outcome | Gradients]) -> None:
        self._running -= 1
        self._finished.append(result)


def _stop_if_all_fail(store: Store) -> None:
    outcomes = [trial.outcome for trial in store.trials() if trial.outcome is not None]
    failures = [outcome.failure for outcome in outcomes]
    kinds = {failure.kind for failure in failures if failure is not None}
    if None not in failures and len(kinds) == 1 and failures[0] is not None:
        raise CampaignStopped(
            f"the first {len(failures)} candidates all failed alike ({failures[0].kind}): "
            f"{failures[0].reason}"
        )
