"""The study: what to try next, what came of it, and both on disk before anything else happens.

The sampler works on an Optuna study in memory (Optuna's database storage takes up to seconds a
trial); the store holds the events, asked and told, in their order. Replaying them rebuilds the study
in memory exactly, whatever was in flight when the last driver died.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import optuna
from optuna.samplers import NSGAIISampler
from optuna.trial import TrialState, create_trial

from evomerge import campaign
from evomerge.search.objectives import (
    Better,
    higher_is_better,
    objective_values,
    weighted_mean,
)
from evomerge.search.ranking import Ranked, order
from evomerge.search.samplers import BASELINE_ATTRS, Samplers
from evomerge.space import Space
from evomerge.store import Direction, Store, StoredBaseline, StoredTrial
from evomerge.trial import Candidate, Failure, FailureKind, Outcome


class Study:
    """Ask and tell, in any order of tells, several candidates in flight.

    Args:
        space: Where to search.
        settings: Sampler, seed and budget.
        directions: One an objective value (`objectives.directions`).
        store: Open for writing; what it holds is replayed.
        better: Direction of each task's metric, for the weighted mean.

    Raises:
        CampaignError: Nothing is searched, or the sampler cannot handle several objectives.
    """

    def __init__(
        self,
        space: Space,
        settings: campaign.Search,
        directions: Sequence[Direction],
        store: Store,
        *,
        better: Better = higher_is_better,
    ) -> None:
        logging.getLogger("optuna").setLevel(logging.ERROR)
        self._space, self._store, self._better = space, store, better
        self._signs = tuple(1.0 if direction == "maximize" else -1.0 for direction in directions)
        self._distributions = dict(space.distributions)
        self._samplers = Samplers(settings, self._distributions, len(directions))
        self._study = optuna.create_study(
            directions=list(directions), sampler=self._samplers.at(0, 0)
        )
        self._numbers: dict[int, int] = {}  # ours → that of the study in memory
        self._asked: dict[int, Candidate] = {}
        self._complete: dict[int, tuple[Candidate, tuple[float, ...]]] = {}
        self._failed = 0
        self._baselines: list[dict[str, float]] = []
        self._replay()
        self._interrupted = tuple(self._asked.values())

    @property
    def asked(self) -> int:
        """Candidates asked for so far; baselines do not count."""
        return len(self._numbers)

    @property
    def told(self) -> int:
        """Candidates with an outcome, failures included."""
        return len(self._complete) + self._failed

    @property
    def finished(self) -> int:
        """Candidates with scores."""
        return len(self._complete)

    @property
    def failed(self) -> int:
        """Candidates that failed."""
        return self._failed

    @property
    def best(self) -> tuple[Candidate, tuple[float, ...]] | None:
        """The first of the ranking and its values; None before anything is complete."""
        ranked = self.ranking()
        return (ranked[0].candidate, ranked[0].values) if ranked else None

    @property
    def best_value(self) -> float | None:
        """The best value; None before there is one, and in Pareto mode."""
        if not self._complete or len(self._signs) > 1:
            return None
        sign = self._signs[0]
        return sign * max(sign * values[0] for _, values in self._complete.values())

    def add_baseline(self, params: Mapping[str, float], values: Sequence[float]) -> None:
        """Tell the sampler of a point that it did not ask for; again the same point: nothing happens.

        Args:
            params: A value for each dimension of the space.
            values: Its objective values; a point with one that is not finite is left out.
        """
        if dict(params) in self._baselines or not all(map(math.isfinite, values)):
            return
        self._store.add_baseline(params, values)
        self._take_baseline(params, values)

    def ask(self) -> Candidate:
        """Return a new candidate, recorded in the store before it is handed out."""
        number = self.asked
        self._study.sampler = self._samplers.at(number, len(self._baselines))
        trial = self._study.ask(fixed_distributions=self._distributions)
        candidate = Candidate(f"trial {number}", self._space.recipe(trial.params), number)
        self._store.asked(candidate, trial.params, self._distributions)
        self._numbers[number] = trial.number
        self._asked[number] = candidate
        return candidate

    def tell(self, candidate: Candidate, outcome: Outcome) -> None:
        """Record an outcome durably, then let the sampler learn from it.

        A score that is not a finite number is no score: the trial fails as `not finite`.

        Args:
            candidate: One that was asked for, or interrupted, and not told yet.
            outcome: What came of it on the `search` items.

        Raises:
            ValueError: The candidate is not waiting for an outcome.
        """
        number = candidate.number
        if number is None or number not in self._asked:
            raise ValueError(f"{candidate.name} is not waiting for an outcome")
        values: tuple[float, ...] | None = None
        if outcome.failure is None:
            values = objective_values(self._store.campaign, outcome, "search", self._better)
            if not all(map(math.isfinite, values)):
                shown = ", ".join(f"{value:g}" for value in values)
                failure = Failure(FailureKind.NOT_FINITE, f"the objective's value is {shown}")
                outcome, values = replace(outcome, failure=failure), None
        self._store.told(candidate, outcome, values)
        self._take_told(candidate, values)

    def interrupted(self) -> tuple[Candidate, ...]:
        """Return what was asked and not told by an earlier run, and has not been told since."""
        return tuple(c for c in self._interrupted if c.number in self._asked)

    def ranking(self) -> list[Ranked]:
        """Return the completed trials, best first; with several objectives front by front."""
        found = list(self._complete.values())
        upward = [
            [sign * value for sign, value in zip(self._signs, values, strict=True)]
            for _, values in found
        ]
        goals = self._store.campaign.objectives
        means = [weighted_mean(goals, row) if len(row) > 1 else row[0] for row in upward]
        return [Ranked(*found[row], front) for row, front in order(upward, means)]

    def _replay(self) -> None:
        """Do again what the store recorded, in the order in which it happened."""
        trials = self._store.trials()
        events: list[tuple[int, StoredTrial | StoredBaseline, bool]] = []
        for baseline in self._store.baselines():
            events.append((baseline.seq, baseline, True))
        for trial in trials:
            events.append((trial.asked_seq, trial, False))
            if trial.told_seq is not None:
                events.append((trial.told_seq, trial, True))
        for _, what, told in sorted(events, key=lambda event: event[0]):
            if isinstance(what, StoredBaseline):
                self._take_baseline(what.params, what.values)
            elif told:
                self._take_told(what.candidate, what.values)
            else:
                self._ask_again(what)

    def _ask_again(self, trial: StoredTrial) -> None:
        """Put a trial that was asked into the study in memory, with all that asking leaves behind."""
        sampler = self._samplers.at(trial.number, len(self._baselines))
        self._study.sampler = sampler
        running = create_trial(
            state=TrialState.RUNNING,
            params=dict(trial.params),
            distributions=self._distributions,
        )
        sampler.before_trial(self._study, running)
        self._study.add_trial(running)
        added = self._study.get_trials(deepcopy=False)[-1]
        if isinstance(sampler, NSGAIISampler):  # it fixes the parents when a generation begins
            generation = sampler.get_trial_generation(self._study, added)
            sampler.get_parent_population(self._study, generation)
        self._numbers[trial.number] = added.number
        self._asked[trial.number] = trial.candidate

    def _take_told(self, candidate: Candidate, values: tuple[float, ...] | None) -> None:
        number = candidate.number
        assert number is not None
        del self._asked[number]
        if values is None:
            self._failed += 1
            self._study.tell(self._numbers[number], state=TrialState.FAIL)
        else:
            self._complete[number] = (candidate, values)
            self._study.tell(self._numbers[number], values)

    def _take_baseline(self, params: Mapping[str, float], values: Sequence[float]) -> None:
        self._baselines.append(dict(params))
        self._study.add_trial(
            create_trial(
                params=dict(params),
                distributions=self._distributions,
                values=list(values),
                system_attrs=BASELINE_ATTRS,
            )
        )
