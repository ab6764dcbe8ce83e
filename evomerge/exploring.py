"""The search loop: every worker busy, every result on disk before the next candidate is asked for."""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from evomerge.campaign import Campaign
from evomerge.errors import CampaignStopped
from evomerge.progress import Display, Pace
from evomerge.search import Study, Work
from evomerge.store import Store
from evomerge.trial import Outcome, Slopes
from evomerge.workers import Pool

FIRST_CANDIDATES = 5
"""A campaign whose first candidates all fail alike stops and says why."""

AHEAD = 4
"""One candidate is asked for ahead for so many workers: none waits while results are written."""


@contextmanager
def _collecting_only_what_is_new() -> Iterator[None]:
    """Spare the garbage collector the objects of the libraries: a fifth of the time of a large pool."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@_collecting_only_what_is_new()
def explore(campaign: Campaign, store: Store, study: Study, pool: Pool, display: Display) -> None:
    """Search until the budget is spent.

    Args:
        campaign: Its budget.
        store: Of the study.
        study: What to try next.
        pool: Who tries it.
        display: Shows progress.

    Raises:
        CampaignStopped: The first candidates all failed alike.
    """
    hours = campaign.search.hours
    deadline = None if hours is None else time.monotonic() + 3600 * hours
    tally = study.tally
    waiting: deque[Work] = deque(study.interrupted())
    pace = Pace(display, "search", campaign.search.trials, tally.told, tally.failed)
    ahead = 0 if campaign.search.deterministic else pool.size // AHEAD
    flying = 0
    checked = tally.told > FIRST_CANDIDATES
    while True:
        flying += _submit(pool, waiting)
        if deadline is None or time.monotonic() < deadline:
            waiting.extend(study.ask_many(max(0, pool.free + ahead - len(waiting))))
            flying += _submit(pool, waiting)
        if not flying:
            return
        finished = _finished(pool, 1 if campaign.search.deterministic else flying)
        flying -= len(finished)
        flying += _submit(pool, waiting)  # before anything is written
        study.tell_many(finished)
        pace.reach(tally.told, tally.failed, tally.best_value)
        if not checked and tally.told >= FIRST_CANDIDATES:
            checked = True
            _stop_if_all_fail(store)


def _finished(pool: Pool, most: int) -> list[tuple[Work, Outcome | Slopes]]:
    """Wait for a result; return it, and others that are there by then."""
    results = [pool.next()]
    while len(results) < most:
        try:
            results.append(pool.next(timeout=0))
        except TimeoutError:
            break
    return results


def _submit(pool: Pool, waiting: deque[Work]) -> int:
    """Give waiting jobs to idle workers; return how many."""
    count = 0
    while waiting and pool.free:
        pool.submit(waiting.popleft())
        count += 1
    return count


def _stop_if_all_fail(store: Store) -> None:
    outcomes = [trial.outcome for trial in store.trials() if trial.outcome is not None]
    failures = [outcome.failure for outcome in outcomes]
    kinds = {failure.kind for failure in failures if failure is not None}
    if None not in failures and len(kinds) == 1 and failures[0] is not None:
        raise CampaignStopped(
            f"the first {len(failures)} candidates all failed alike ({failures[0].kind}): "
            f"{failures[0].reason}"
        )
