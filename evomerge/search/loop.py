"""The search loop: every worker busy, every result on disk before the next candidate is asked for."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from evomerge.config import Campaign
from evomerge.errors import CampaignStopped
from evomerge.loggers import Callback
from evomerge.progress import Display, Pace
from evomerge.search.study import Study
from evomerge.search.tally import Ended
from evomerge.store import Store
from evomerge.workers import Pool
from evomerge.workers.pool import Answer, Work

FIRST_CANDIDATES = 5
"""A campaign whose first candidates all fail alike stops and says why."""

AHEAD = 4
"""One candidate is asked for ahead for so many workers: a worker that finishes gets its next one before the
result is written. Without it 64 workers of 500 ms wait for the driver (`benchmarks/speed/driver.py`)."""

AT_ONCE = 8
"""Candidates recorded in one transaction, whose write to disk takes longer than asking for them."""


def explore(
    campaign: Campaign,
    store: Store,
    study: Study,
    pool: Pool,
    display: Display,
    callback: Callback | None = None,
    *,
    clock: Callable[[], float] | None = None,
) -> None:
    """Search until the budget is spent, and record and say what ended it.

    Args:
        campaign: Its budget.
        store: Of the study.
        study: What to try next.
        pool: Who tries it.
        display: Shows progress.
        callback: Is told of every trial that ends.
        clock: Seconds by which `hours` are counted; None: those that pass.

    Raises:
        CampaignStopped: The first candidates all failed alike.
    """
    store.end(None)
    try:
        now = clock or time.monotonic
        ended = _explored(campaign, store, study, pool, display, callback or Callback(), now)
    except (KeyboardInterrupt, CampaignStopped) as stopped:
        interrupted = isinstance(stopped, KeyboardInterrupt)
        store.end(Ended.INTERRUPTED if interrupted else Ended.FAILURES)
        raise
    store.end(ended)
    display.say(f"search ended: {ended}")


def _explored(
    campaign: Campaign,
    store: Store,
    study: Study,
    pool: Pool,
    display: Display,
    callback: Callback,
    now: Callable[[], float],
) -> Ended:
    """Return what ended the search."""
    hours = campaign.search.hours
    deadline = None if hours is None else now() + 3600 * hours
    tally = study.tally
    pace = Pace(display, "search", campaign.search.trials, tally.told, tally.failed)
    checked = tally.told > FIRST_CANDIDATES
    waiting = deque(study.interrupted())
    one_by_one = campaign.search.deterministic
    running = 0
    while True:
        in_time = deadline is None or now() < deadline
        ahead = 0 if one_by_one else pool.size // AHEAD
        while in_time and (missing := pool.free + ahead - len(waiting)) > 0:
            with store.together():
                asked = _asked(study, 1 if one_by_one else min(missing, AT_ONCE))
            waiting.extend(asked)
            running += _submit(waiting, pool)
            if not asked:
                break
        running += _submit(waiting, pool)
        _announce(campaign, study, pace, display, callback)  # what was answered without work
        if not running:
            return study.ended or (Ended.ITEMS if in_time else Ended.HOURS)
        finished = [pool.next()]
        running += _submit(waiting, pool) - 1
        while running and not one_by_one and (more := _finished(pool)) is not None:
            finished.append(more)
            running += _submit(waiting, pool) - 1
        with store.together():
            for work, outcome in finished:
                study.tell(work, outcome)
        _announce(campaign, study, pace, display, callback)
        if not checked and tally.told >= FIRST_CANDIDATES:
            checked = True
            _stop_if_all_fail(store)


def _asked(study: Study, most: int) -> list[Work]:
    asked: list[Work] = []
    while len(asked) < most and (work := study.ask()) is not None:
        asked.append(work)
    return asked


def _submit(waiting: deque[Work], pool: Pool) -> int:
    """Give waiting jobs to idle workers; return how many."""
    count = min(len(waiting), pool.free)
    for _ in range(count):
        pool.submit(waiting.popleft())
    return count


def _finished(pool: Pool) -> tuple[Work, Answer] | None:
    try:
        return pool.next(timeout=0)
    except TimeoutError:
        return None


def _announce(
    campaign: Campaign, study: Study, pace: Pace, display: Display, callback: Callback
) -> None:
    for told in study.take_news():
        trial, values = told.ended(campaign.value_names), told.values
        callback.on_trial(trial)
        display.event(
            "trial",
            number=trial.number,
            state=trial.state,
            **({"value": values[0]} if values and len(values) == 1 else {"values": values}),
            seconds=trial.seconds,
            failure=trial.failure,
        )
    tally = study.tally
    pace.reach(tally.told, tally.failed, tally.best_value)


def _stop_if_all_fail(store: Store) -> None:
    outcomes = [trial.outcome for trial in store.trials() if trial.outcome is not None]
    failures = [outcome.failure for outcome in outcomes]
    kinds = {failure.kind for failure in failures if failure is not None}
    if None not in failures and len(kinds) == 1 and failures[0] is not None:
        raise CampaignStopped(
            f"the first {len(failures)} candidates all failed alike ({failures[0].kind}): "
            f"{failures[0].reason}; for the traceback: evomerge report {store.folder} --format json"
        )
