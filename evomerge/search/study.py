"""The study: what to try next, what came of it, and both on disk before anything else happens.

The store holds the events (asked, told, steps of descents) in their order. Replaying them rebuilds
the sampler exactly, whatever was in flight when the last driver died.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from evomerge.candidate.trial import (
    Cost,
    Entry,
    Failure,
    FailureKind,
    GradientJob,
    Gradients,
    Job,
    Outcome,
    Race,
)
from evomerge.kinds import SearchSpace
from evomerge.objective import Objectives
from evomerge.racing import completed
from evomerge.search.descent import Step
from evomerge.search.history import Event, Known, Told, events
from evomerge.search.in_flight import InFlight
from evomerge.search.incumbents import Incumbents
from evomerge.search.racing import against
from evomerge.search.ranking import Ranked, finalists, ranked_loss, ranking
from evomerge.search.sampler import DescendingSampler, Params, Result, Sampler
from evomerge.search.samplers import open_sampler
from evomerge.search.tally import GRADIENT_COST, Ended, Tally
from evomerge.store import Store, StoredBaseline, StoredTrial
from evomerge.workers.pool import Work

_ATTEMPTS = 3  # draws before a candidate near one in flight is let pass


class Study:
    """Ask and tell, in any order of tells, several jobs in flight.

    Attributes:
        tally: How far it is.

    Args:
        space: Where to search.
        aims: Of the campaign, on the `search` items.
        store: Open for writing; what it holds is replayed.
        known: Parents and naive merges; the sampler is told of those that lie in the space.
        first: Points to try before the sampler's own, such as those of an earlier campaign.
        counts: Task → number of its search items with a gold answer, for the tasks that have any.
        race: What candidates are raced by; None: every candidate is scored in full.
        sampler: Another source of points than the campaign's sampler.

    Raises:
        CampaignError: Nothing is searched, or the sampler cannot do what is asked.
    """

    def __init__(
        self,
        space: SearchSpace,
        aims: Objectives,
        store: Store,
        *,
        known: Sequence[Known] = (),
        first: Sequence[Params] = (),
        counts: Mapping[str, int] | None = None,
        race: Race | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        logging.getLogger("optuna").setLevel(logging.ERROR)
        self.tally = Tally()
        self._space, self._aims, self._store = space, aims, store
        self._first, self._race = [dict(point) for point in first], race
        campaign = store.campaign
        self._metrics = {goal.task: (goal.metric,) for goal in campaign.objectives}
        self._sampler = sampler or open_sampler(
            campaign, space, aims, counts or {}, store.planned_trials
        )
        self._in_flight = InFlight(space.distributions)
        self._incumbents = Incumbents(aims.directions)
        self._params: dict[int, dict[str, float]] = {}
        self._running: dict[int, Entry] = {}
        self._steps: dict[str, Step] = {}  # by the name of the job in flight
        self._interrupted: list[Work] = []
        self._news: list[Told] = []
        self._replay(known)

    @property
    def best(self) -> Ranked | None:
        """The first of the ranking; None before anything is complete."""
        return next(iter(self.ranking()), None)

    @property
    def ended(self) -> Ended | None:
        """What ended the search; None: there is more to ask for."""
        return self.tally.ended(self._store.campaign, self._pending)

    def ask(self) -> Work | None:
        """Return one job, as `ask_many` does; None: the budget is spent, or a result must come first."""
        return next(iter(self.ask_many(1)), None)

    def ask_many(self, count: int) -> list[Work]:
        """Return new jobs, recorded in the store before they are handed out.

        A candidate that was scored before is answered from the study and costs nothing; one whose
        is in flight waits for it. Neither is returned.

        Args:
            count: How many at most; fewer where the budget is spent or a result must come first.
        """
        jobs: list[Work] = []
        asked: list[Entry | Step] = []
        while len(jobs) < count and self.ended is None:
            step = self._next_step()
            if step is not None:
                cost = GRADIENT_COST * step.count
                if not self.tally.affords(self._store.campaign, self._pending + cost):
                    break
                asked.append(step)
                self._take_step(step)
                jobs.append(self._gradient_job(step))
                continue
            if self._must_wait():
                break
            number = self.tally.asked
            params = self._point(number)
            entry = self._candidate(number, params)
            asked.append(entry)
            answer = self._take_asked(entry, params, entry.candidate.text())
            if answer is not None:
                self._record_asked(asked)
                self._tell_trials([self._copied(entry, answer)])
            elif not self._in_flight.is_twin(number):
                jobs.append(self._job(entry))
        self._record_asked(asked)
        return jobs

    def tell(self, work: Work, outcome: Outcome | Gradients) -> None:
        """Record what came of one job; see `tell_many`."""
        self.tell_many([(work, outcome)])

    def tell_many(self, results: Sequence[tuple[Work, Outcome | Gradients]]) -> None:
        """Record results durably, then let the sampler learn from them.

        A score that is not a finite number is no score: the trial fails as `not finite`.

        Args:
            results: Jobs that were asked for, or interrupted, and not told yet; with what came of them.

        Raises:
            ValueError: A job is not waiting for a result.
        """
        with self._store.together():
            trials: list[Told] = []
            for work, outcome in results:
                if isinstance(work, Job) and isinstance(outcome, Outcome):
                    trials.append(self._judged(work.entry, outcome, work.race))
                elif isinstance(work, GradientJob) and isinstance(outcome, Gradients):
                    self._tell_trials(trials)
                    trials = []
                    self._tell_step(work, outcome)
                else:
                    found, expected = type(outcome).__name__, type(work).__name__
                    raise ValueError(f"{found} does not answer {expected}")
            self._tell_trials(trials)

    def take_news(self) -> list[Told]:
        """Return the trials that were told since the last call, in their order."""
        news, self._news = self._news, []
        return news

    def interrupted(self) -> list[Work]:
        """Return the jobs that an earlier run left in flight, in the order in which they were asked."""
        left, self._interrupted = self._interrupted, []
        return [
            job
            for job in left
            if isinstance(job, GradientJob) or not self._in_flight.is_twin(_number(job.entry))
        ]

    def ranking(self) -> list[Ranked]:
        """Return the trials scored in full, best first; with several objectives front by front."""
        return ranking(self._aims, self.tally.scored.values())

    def finalists(self) -> Iterator[Entry]:
        """Give the trials in the order in which `select` should see them: behind all, those given up."""
        for some in (self.tally.scored, self.tally.given_up):
            for number in finalists(self._aims, ranking(self._aims, some.values())):
                yield self._candidate(number, self._params[number])

    @property
    def _pending(self) -> int:
        """Items that the work in flight may still cost."""
        steps = sum(step.count for step in self._steps.values())
        return len(self._running) * self._store.campaign.items_per_trial + GRADIENT_COST * steps

    def _next_step(self) -> Step | None:
        sampler = self._sampler
        if not isinstance(sampler, DescendingSampler) or self.tally.asked < len(self._first):
            return None
        return None if self._must_wait() else sampler.next_step()

    def _must_wait(self) -> bool:
        """Descents begin at the best of the given points, so these are noted of first."""
        given = range(len(self._first))
        return (
            isinstance(self._sampler, DescendingSampler)
            and self.tally.asked >= len(self._first)
            and any(number in self._running for number in given)
        )

    def _point(self, number: int) -> dict[str, float]:
        if number < len(self._first):
            return self._first[number]
        for attempt in range(_ATTEMPTS):
            params = self._sampler.propose(number, attempt)
            if not self._in_flight.is_near(params):
                break
        return params

    def _candidate(self, number: int, params: Params) -> Entry:
        return Entry(f"trial {number}", self._space.candidate(params), number)

    def _job(self, entry: Entry) -> Job:
        race = against(self._race, self._incumbents.outcomes, _number(entry))
        return Job(entry, "search", self._metrics, race)

    def _gradient_job(self, step: Step) -> GradientJob:
        candidate = self._space.candidate(step.params)
        return GradientJob(step.name, candidate, step.items, step.shares)

    def _record_asked(self, asked: list[Entry | Step]) -> None:
        if asked:
            with self._store.together():
                for new in asked:
                    if isinstance(new, Step):
                        self._store.gradient_asked(new.descent, new.number, new.items, new.params)
                    else:
                        params = self._params[_number(new)]
                        self._store.asked(new, params, self._space.distributions)
            asked.clear()

    def _tell_trials(self, judged: Sequence[Told]) -> None:
        entries = list(judged)
        for told in judged:
            for number in self._in_flight.land(_number(told.entry), told.outcome):
                outcome = replace(told.outcome, cost=Cost())  # it waited for this one
                self._in_flight.land(number, outcome)
                entries.append(Told(self._running[number], outcome, told.values, told.pruned))
        if entries:
            with self._store.together():
                for told in entries:
                    self._store.told(told.entry, told.outcome, told.values, pruned=told.pruned)
            self._news += entries
        for told in entries:
            self._take_told(told.entry, told.outcome, told.values)

    def _judged(self, entry: Entry, outcome: Outcome, race: Race | None) -> Told:
        if entry.number not in self._running:
            raise ValueError(f"{entry.name} is not waiting for an outcome")
        if outcome.failure is not None:
            return Told(entry, outcome, None)
        values = self._aims.values(_in_full(race, outcome), entry.candidate)
        if all(map(math.isfinite, values)):
            return Told(entry, outcome, values, outcome.pruned is not None)
        shown = ", ".join(f"{value:g}" for value in values)
        failure = Failure(FailureKind.NOT_FINITE, f"the objective's value is {shown}")
        return Told(entry, replace(outcome, failure=failure), None)

    def _copied(self, entry: Entry, answer: Outcome) -> Told:
        """Answer a trial by an earlier one's outcome: worth the same, at no cost."""
        told = self._judged(entry, answer, None)
        return replace(told, outcome=replace(told.outcome, cost=Cost()))

    def _tell_step(self, job: GradientJob, found: Gradients) -> None:
        step = self._steps.get(job.name)
        if step is None:
            raise ValueError(f"{job.name} is not waiting for its gradients")
        gradients: dict[str, float] | None = None
        reason = None if found.failure is None else f"{found.failure.kind}: {found.failure.reason}"
        trace = "" if found.failure is None else found.failure.trace
        if reason is None:
            gradients = self._space.gradient(step.params, found)
            if not all(map(math.isfinite, [found.loss, *gradients.values()])):
                gradients, reason = None, f"{FailureKind.NOT_FINITE}: the gradients are not finite"
        loss = None if gradients is None else found.loss
        cost = GRADIENT_COST * job.count
        self._store.gradient_told(
            step.descent, step.number, loss, gradients or {}, reason, cost, trace
        )
        self._take_gradients(step, gradients, reason, cost)

    def _replay(self, known: Sequence[Known]) -> None:
        """Do again what the store recorded, in the order in which it happened; then add what is new."""
        inside: dict[_Point, Result] = {}
        for one in known:
            result = self._result(self._aims.values(one.outcome), one.outcome)
            if not all(map(math.isfinite, result.values)):
                continue
            self._incumbents.note(result.values, result.violations, one.outcome)
            if one.params is not None:
                inside.setdefault(_point_of(one.params), result)
        unanswered: list[Told] = []
        for event in events(self._store):
            self._hear(event, inside, unanswered)
        self._tell_trials(unanswered)
        for point, result in inside.items():
            self._store.add_baseline(dict(point), result.values)
            self._sampler.known(dict(point), result)

    def _hear(self, event: Event, inside: dict[_Point, Result], unanswered: list[Told]) -> None:
        what, told = event.what, event.kind == "told"
        if isinstance(what, StoredBaseline):
            self._take_baseline(what, inside)
        elif isinstance(what, StoredTrial):
            if not told:
                answer = self._take_asked(what.entry, what.params, what.form)
                if what.told_seq is None and answer is None:
                    self._interrupted.append(self._job(what.entry))  # against its rivals then
                elif what.told_seq is None and answer is not None:
                    unanswered.append(self._copied(what.entry, answer))
            elif what.outcome is not None:
                self._in_flight.land(what.number, what.outcome)
                self._take_told(what.entry, what.outcome, what.values)
        elif isinstance(self._sampler, DescendingSampler):
            step = self._sampler.step(what.descent, what.step, what.params, what.items)
            if told:
                gradients = None if what.loss is None else what.gradients
                self._take_gradients(step, gradients, what.failure, what.cost_items)
            else:
                self._take_step(step)
                if what.told_seq is None:
                    self._interrupted.append(self._gradient_job(step))

    def _take_baseline(self, baseline: StoredBaseline, inside: dict[_Point, Result]) -> None:
        result = inside.pop(_point_of(baseline.params), None)
        loss = -self._aims.mean(baseline.values)
        self._sampler.known(baseline.params, result or Result(baseline.values, loss))

    def _take_asked(self, entry: Entry, params: Params, text: str) -> Outcome | None:
        """Note that a trial was asked; return the outcome of an earlier one with the same recipe."""
        number = _number(entry)
        self._sampler.asked(number, params)
        self._params[number] = dict(params)
        self.tally.asked += 1
        self._running[number] = entry
        answer = self._in_flight.start(number, params, text)
        self.tally.repeats = self._in_flight.repeats
        return answer

    def _take_told(self, entry: Entry, outcome: Outcome, values: Sequence[float] | None) -> None:
        number = _number(entry)
        del self._running[number]
        result = None if values is None else self._result(values, outcome)
        self.tally.take(number, outcome, result)
        if result is not None:
            self._incumbents.note(result.values, result.violations, outcome)
        self._sampler.told(number, self._params[number], result)

    def _take_step(self, step: Step) -> None:
        assert isinstance(self._sampler, DescendingSampler)  # nothing else takes steps
        self._sampler.step_asked(step)
        self._steps[step.name] = step

    def _take_gradients(
        self, step: Step, gradients: Mapping[str, float] | None, failure: str | None, cost: int
    ) -> None:
        assert isinstance(self._sampler, DescendingSampler)
        del self._steps[step.name]
        self.tally.items += cost
        self.tally.gradient_failure = failure or self.tally.gradient_failure
        self._sampler.step_told(step.descent, gradients)

    def _result(self, values: Sequence[float], outcome: Outcome) -> Result:
        violations = self._aims.violations(outcome)
        loss = ranked_loss(self._aims.mean(values), violations)
        return Result(tuple(values), loss, violations, outcome)


_Point = tuple[tuple[str, float], ...]


def _point_of(params: Params) -> _Point:
    return tuple(sorted(params.items()))


def _number(entry: Entry) -> int:
    if entry.number is None:
        raise ValueError(f"{entry.name} is no trial: it has no number")
    return entry.number


def _in_full(race: Race | None, outcome: Outcome) -> Outcome:
    return outcome if race is None else completed(race, outcome)
