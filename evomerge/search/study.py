"""The study: what to try next, what came of it, and both on disk before anything else happens.

The store holds the events (asked, told, steps of descents) in their order. Replaying them rebuilds
the sampler exactly, whatever was running when the last driver died.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from evomerge.candidate import Candidate
from evomerge.candidate.tables import Array
from evomerge.candidate.trial import (
    Entry,
    GradientJob,
    Gradients,
    Job,
    Outcome,
    Race,
    Targets,
)
from evomerge.kinds import SearchSpace
from evomerge.objective import Objectives, Ranked, finalists, is_timed, loss_of, ranking
from evomerge.search.history import Known, Told, checked, copied, differentiated, recorded
from evomerge.search.in_flight import InFlight
from evomerge.search.incumbents import Incumbents
from evomerge.search.members import Members
from evomerge.search.opening import open_sampler
from evomerge.search.racing import against
from evomerge.search.samplers.descent import Step
from evomerge.search.samplers.sampler import Measurement, Params, Sampler
from evomerge.search.tally import GRADIENT_COST, Ended, Tally
from evomerge.search.teachers import gold_shares, of_items
from evomerge.store import Store, StoredBaseline, StoredGradient, StoredTrial
from evomerge.workers.pool import Answer, Work

_STATE = "descent:"  # of the store's arrays, with the descent's number behind it
_ATTEMPTS = 3  # draws before a candidate near a running one is let pass
_DRAWS = 20  # draws before one that was tried already is: most points of a stack lie in few paths


class Study:
    """Ask and tell, in any order of tells, several jobs running at once.

    Attributes:
        tally: How far it is.
        path: Trial → the trials of its descent, if it belongs to one.

    Args:
        space: Where to search.
        aims: Of the campaign, on the `search` items.
        store: Open for writing; what it holds is replayed.
        known: Parents and naive merges; the sampler is told of those that lie in the space.
        first: Points to try before the sampler's own, such as those of an earlier campaign.
        counts: Task → number of its search items with a gold answer, for the tasks that have any.
        race: What candidates are raced by; None: every candidate is scored in full.
        targets: Task → what its teacher says of each search item with a gold answer.
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
        targets: Mapping[str, Targets] | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        logging.getLogger("optuna").setLevel(logging.ERROR)
        self.tally = Tally(store.campaign.mode)
        self._space, self._aims, self._store = space, aims, store
        self._first, self._race = [dict(point) for point in first], race
        campaign = store.campaign
        self._targets = targets or {}
        self._metrics = {goal.task: (goal.metric,) for goal in campaign.objectives}
        self._sampler = sampler or open_sampler(
            campaign, space, aims, counts or {}, store.planned_trials
        )
        self.path = self._sampler.path
        self._in_flight = InFlight(space.distributions)
        self._incumbents = Incumbents(aims.directions)
        self._members = Members(campaign, aims.better)
        self._params: dict[int, dict[str, float]] = {}
        self._candidates: dict[int, Candidate] = {}
        self._running: dict[int, Entry] = {}
        self._steps: dict[str, Step] = {}  # by the name of the running job
        self._interrupted: list[Job | Step] = []
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
        """Return a new job, recorded in the store before it is handed out.

        A candidate that was scored before is answered from the study and costs nothing; one that is
        running waits for its result. Neither is returned.

        Returns:
            None: the budget is spent, or a result must come first.
        """
        while self.ended is None and not self._must_wait():
            step = None if self.tally.asked < len(self._first) else self._sampler.next_step()
            if step is not None:
                cost = GRADIENT_COST * step.count
                if not self.tally.affords(self._store.campaign, self._pending + cost):
                    return None
                self._store.gradient_asked(step.descent, step.number, step.items, step.params)
                self._take_step(step)
                return self._gradient_job(step)
            number = self.tally.asked
            params = self._point(number)
            fine = None if number < len(self._first) else self._sampler.coefficients(params)
            candidate = self._space.candidate(params, fine, self._members.best)
            if self._members.best in candidate.scored_members.values():
                candidate = self._space.candidate(params, fine, self._members.naive)
            entry = Entry(f"trial {number}", candidate, number)
            self._store.asked(entry, params, self._space.distributions)
            answer = self._take_asked(entry, params, number, entry.candidate.text())
            if answer is not None:
                self._tell_trial(number, copied(self._aims, entry, answer))
            elif not self._in_flight.is_duplicate(number):
                return self._job(number, entry)
        return None

    def tell(self, work: Work, outcome: Answer) -> None:
        """Record a result durably, then let the sampler learn from it.

        A score that is not finite is not recorded: the trial fails as `not finite`.

        Args:
            work: A job that was asked for, or interrupted, and not told yet.
            outcome: What came of it.

        Raises:
            ValueError: The job is not waiting for this result.
        """
        if isinstance(work, Job) and isinstance(outcome, Outcome):
            number = work.entry.number
            if number is None or number not in self._running:
                raise ValueError(f"{work.entry.name} is not waiting for an outcome")
            self._tell_trial(number, checked(self._aims, work.entry, outcome, work.race))
        elif isinstance(work, GradientJob) and isinstance(outcome, Gradients):
            self._tell_step(work, outcome)
        else:
            found, expected = type(outcome).__name__, type(work).__name__
            raise ValueError(f"{found} does not answer {expected}")

    def take_news(self) -> list[Told]:
        """Return the trials that were told since the last call, in their order."""
        news, self._news = self._news, []
        return news

    def interrupted(self) -> list[Work]:
        """Return the jobs that an earlier run left unfinished, in the order in which they were asked."""
        left, self._interrupted = self._interrupted, []
        return [
            self._gradient_job(one) if isinstance(one, Step) else one
            for one in left
            if isinstance(one, Step)
            or one.entry.number is None
            or not self._in_flight.is_duplicate(one.entry.number)
        ]

    def ranking(self) -> list[Ranked]:
        """Return the trials scored in full, best first; with several objectives front by front."""
        return ranking(self._aims, self.tally.scored.values())

    def finalists(self) -> Iterator[Entry]:
        """Give the trials in the order in which `select` should see them: behind all, those given up.

        With a point of a descent go the others of its path: what the last ones gain on the items that they
        learn from may be lost on others. So, too, the best of each kind comes first: what learnt nothing from
        the search items' answers scores less there than what did, and may gain more elsewhere.
        """
        order: dict[int, None] = {}
        for some in (self.tally.scored, self.tally.given_up):
            numbers = finalists(self._aims, ranking(self._aims, some.values()))
            kinds = {self._candidates[number].kind: number for number in reversed(numbers)}
            if len(kinds) > 1:
                order |= dict.fromkeys(number for number in numbers if number in kinds.values())
            for number in numbers:
                order |= dict.fromkeys((number, *self.path(number)))
        for number in order:
            if number in self.tally.scored or number in self.tally.given_up:
                yield Entry(f"trial {number}", self._candidates[number], number)

    @property
    def _pending(self) -> int:
        """Items that running work may still cost."""
        steps = sum(step.count for step in self._steps.values())
        return len(self._running) * self._store.campaign.items_per_trial + GRADIENT_COST * steps

    def _must_wait(self) -> bool:
        """Descents begin at the best of the given points, so their results must come first."""
        given = range(len(self._first))
        return (
            self._sampler.needs_gold
            and self.tally.asked >= len(self._first)
            and any(number in self._running for number in given)
        )

    def _point(self, number: int) -> dict[str, float]:
        if number < len(self._first):
            return self._first[number]
        params: dict[str, float] = {}
        for attempt in range(_DRAWS):
            before, params = params, self._sampler.propose(number, attempt)
            if attempt >= _ATTEMPTS and params == before:  # all attempts are the same
                break
            is_near = attempt < _ATTEMPTS - 1 and self._in_flight.is_near(params)
            if not is_near and not self._is_known(params):
                break
        return params

    def _is_known(self, params: Params) -> bool:
        """Tell whether a point's candidate was tried; those of descents differ in more than their points."""
        if self._sampler.needs_gold:
            return False
        candidate = self._space.candidate(params, None, self._members.best)
        return self._in_flight.knows(candidate.text())

    def _job(self, number: int, entry: Entry) -> Job:
        race = against(self._race, self._incumbents.outcomes, number)
        timed = is_timed(entry.candidate, self._store.campaign.asked_costs, "search")
        return self._members.informed(Job(entry, "search", self._metrics, race, timed=timed))

    def _gradient_job(self, step: Step) -> GradientJob:
        candidate = self._space.candidate(step.params, step.coefficients)
        targets, golds = of_items(self._targets, step.items), gold_shares(self._store.campaign)
        return GradientJob(step.name, candidate, step.items, step.shares, step.rows, targets, golds)

    def _tell_trial(self, number: int, told: Told) -> None:
        """Record a trial, and those that waited for it, as worth the same at no cost."""
        trials = {number: told}
        for duplicate in self._in_flight.land(number, told.outcome):
            outcome = replace(told.outcome, cost=told.outcome.cost.copy())
            self._in_flight.land(duplicate, outcome)
            trials[duplicate] = replace(told, entry=self._running[duplicate], outcome=outcome)
        with self._store.together():
            for one in trials.values():
                self._store.told(one.entry, one.outcome, one.values, pruned=one.pruned)
        for each, one in trials.items():
            self._take_told(each, one.outcome, one.values)
            best = self.tally.best_value
            self._news.append(replace(one, params=self._params[each], best=best))

    def _tell_step(self, job: GradientJob, found: Gradients) -> None:
        step = self._steps.get(job.name)
        if step is None:
            raise ValueError(f"{job.name} is not waiting for its gradients")
        gradients, reason = differentiated(self._space, step.params, found)
        loss = None if gradients is None else found.loss
        cost = GRADIENT_COST * job.count
        with self._store.together():
            self._store.gradient_told(
                step.descent, step.number, loss, gradients or {}, reason, cost, found
            )
            self._take_gradients(step, gradients, reason, cost, found.rows or None)
            state = self._sampler.state(step.descent) if step.rows else None
            if state is not None:
                self._store.arrays.keep(f"{_STATE}{step.descent}", state)

    def _replay(self, known: Sequence[Known]) -> None:
        """Do again what the store recorded, in the order in which it happened; then add what is new."""
        inside: dict[_Point, Measurement] = {}
        for one in known:
            result = self._result(self._aims.values(one.outcome), one.outcome, None)
            if not all(map(math.isfinite, result.values)):
                continue
            self._incumbents.note(result.values, result.violations, one.outcome)
            if one.candidate is not None:
                self._members.known(one.candidate, one.outcome, result.loss)
            if one.params is not None:
                inside.setdefault(_point_of(one.params), result)
        unanswered: dict[int, Told] = {}
        for stored, told in recorded(self._store):
            if isinstance(stored, StoredBaseline):
                self._take_baseline(stored, inside)
            elif isinstance(stored, StoredTrial):
                self._replay_trial(stored, unanswered, told=told)
            else:
                self._replay_step(stored, told=told)
        for descent, state in self._store.arrays.beginning(_STATE).items():
            self._sampler.restore(int(descent), state)
        self._interrupted = [
            self._sampler.step(one.descent, one.number, one.params, one.items)
            if isinstance(one, Step)
            else one
            for one in self._interrupted
        ]
        for number, answer in unanswered.items():
            self._tell_trial(number, answer)
        for point, result in inside.items():
            self._store.add_baseline(dict(point), result.values)
            self._sampler.known(dict(point), result)

    def _replay_trial(self, trial: StoredTrial, unanswered: dict[int, Told], *, told: bool) -> None:
        if told and trial.outcome is not None:
            self._in_flight.land(trial.number, trial.outcome)
            self._take_told(trial.number, trial.outcome, trial.values)
        elif not told:
            answer = self._take_asked(trial.entry, trial.params, trial.number, trial.form)
            if trial.told_seq is None and answer is None:
                self._interrupted.append(
                    self._job(trial.number, trial.entry)
                )  # against its rivals then
            elif trial.told_seq is None and answer is not None:
                unanswered[trial.number] = copied(self._aims, trial.entry, answer)

    def _replay_step(self, stored: StoredGradient, *, told: bool) -> None:
        step = self._sampler.step(stored.descent, stored.step, stored.params, stored.items)
        if told:
            gradients = None if stored.loss is None else stored.gradients
            self._take_gradients(step, gradients, stored.failure, stored.cost_items)
        else:
            self._take_step(step)
            if stored.told_seq is None:
                self._interrupted.append(step)

    def _take_baseline(self, baseline: StoredBaseline, inside: dict[_Point, Measurement]) -> None:
        result = inside.pop(_point_of(baseline.params), None)
        loss = -self._aims.mean(baseline.values)
        self._sampler.known(baseline.params, result or Measurement(baseline.values, loss))

    def _take_asked(self, entry: Entry, params: Params, number: int, text: str) -> Outcome | None:
        """Count a trial as running; return the outcome of an earlier one with the same candidate."""
        self._sampler.asked(number, params)
        self._params[number] = dict(params)
        self._candidates[number] = entry.candidate
        self.tally.asked += 1
        self._running[number] = entry
        answer = self._in_flight.start(number, params, text)
        self.tally.repeats = self._in_flight.repeats
        return answer

    def _take_told(self, number: int, outcome: Outcome, values: Sequence[float] | None) -> None:
        del self._running[number]
        candidate = outcome.candidate or self._candidates[number]
        self._candidates[number] = candidate
        result = None if values is None else self._result(values, outcome, candidate)
        fine = candidate.coefficients
        if result is not None and fine is not None:
            result = replace(result, coefficients=fine)
        self.tally.take(number, outcome, result)
        if result is not None:
            self._incumbents.note(result.values, result.violations, outcome)
            self._members.compare(candidate, outcome, result.loss)
        self._sampler.told(number, self._params[number], result)

    def _take_step(self, step: Step) -> None:
        self._sampler.step_asked(step)
        self._steps[step.name] = step

    def _take_gradients(
        self,
        step: Step,
        gradients: Mapping[str, float] | None,
        failure: str | None,
        cost: int,
        rows: Mapping[str, Array] | None = None,
    ) -> None:
        del self._steps[step.name]
        self.tally.items += cost
        self.tally.gradient_failure = failure or self.tally.gradient_failure
        self._sampler.step_told(step.descent, gradients, rows)

    def _result(
        self, values: Sequence[float], outcome: Outcome, candidate: Candidate | None
    ) -> Measurement:
        violations = self._aims.violations(outcome, candidate)
        loss = loss_of(self._aims.mean(values), violations)
        return Measurement(tuple(values), loss, violations, outcome)


_Point = tuple[tuple[str, float], ...]


def _point_of(params: Params) -> _Point:
    return tuple(sorted(params.items()))
