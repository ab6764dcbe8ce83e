"""Scores rows that are not trials, each once, and asks teachers what they say of items."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from evomerge.candidate.trial import (
    Entry,
    Job,
    Outcome,
    Split,
    TargetJob,
    Targets,
    TargetsFound,
)
from evomerge.config import Campaign
from evomerge.loggers import Callback, RowScored, StageEnded
from evomerge.objective import is_timed
from evomerge.progress import Display, Pace
from evomerge.search.members import Members
from evomerge.search.samplers import sampler_class
from evomerge.search.teachers import from_bytes, key_of, teacher_jobs, to_bytes
from evomerge.store import Store, by_task
from evomerge.tasks import Items
from evomerge.tasks.metrics import GOLD_LOGLIKELIHOOD, TEACHER_DIVERGENCE
from evomerge.workers import Pool
from evomerge.workers.pool import in_turn


class Bench:
    """Scores rows that are not trials, all at once, each once; `callback` is told of each stage."""

    def __init__(
        self,
        store: Store,
        campaign: Campaign,
        items: Items,
        pool: Pool,
        display: Display,
        callback: Callback | None = None,
    ) -> None:
        self.store, self.pool, self.display = store, pool, display
        self.campaign, self.items, self.callback = campaign, items, callback or Callback()

    def metrics(self, split: Split, told: Collection[str] = ()) -> dict[str, tuple[str, ...]]:
        """The searched metric; on select and holdout the reported one, and divergences, beside it.

        On select also the gold answers' likelihood, by which it is decided how far a descent goes.

        `told`: tasks of whose items a teacher's word is known.
        """
        final = split != "search"
        likelihoods = self._likelihoods() if split == "select" else ()
        return {
            goal.task: tuple(
                dict.fromkeys(
                    [
                        goal.metric,
                        *([goal.report] * final),
                        *([GOLD_LOGLIKELIHOOD] * (goal.task in likelihoods)),
                        *([TEACHER_DIVERGENCE] * (goal.task in told)),
                    ]
                )
            )
            for goal in self.campaign.objectives
        }

    def wanted(self, split: Split) -> tuple[dict[str, tuple[str, ...]], dict[str, Targets]]:
        """Return the metrics of a split, and what teachers say of its items."""
        told = self.told(self._divergences(split))
        return self.metrics(split, told), told

    def score(self, stage: str, candidates: Iterable[Entry], split: Split) -> int:
        """Score what the store does not hold yet, and record it; return how many that were."""
        missing = [one for one in candidates if self.store.evaluation(one.key, split) is None]
        if not missing:
            return 0
        metrics, told = self.wanted(split)
        jobs = [
            Job(one, split, metrics, targets=told, timed=self.is_timed(one, split), answers=True)
            for one in missing
        ]
        rows: list[RowScored] = []

        def record(job: Job, outcome: Outcome) -> None:
            self.store.record(job, outcome)
            rows.append(_row(job.entry, outcome))

        self.run(stage, jobs, record)
        self.callback.on_stage(StageEnded(stage, split, tuple(rows)))
        return len(missing)

    def run(
        self, stage: str, jobs: Sequence[Job], record: Callable[[Job, Outcome], object]
    ) -> None:
        """Score candidates on one split, and record each outcome as soon as it is there."""
        pace = Pace(self.display, stage, len(jobs))
        over = [bool(job.entry.candidate.scored_members) and job.noise is None for job in jobs]
        apart = [job for job, later in zip(jobs, over, strict=True) if not later]
        self._score(apart, pace, record)
        if any(over):  # of members that are scored here, too, the scores are known by now
            members = self._members(jobs[0].split)
            later = [
                members.informed(job) for job, is_over in zip(jobs, over, strict=True) if is_over
            ]
            self._score(later, pace, record)

    def is_timed(self, entry: Entry, split: Split) -> bool:
        """Tell whether a model is timed: those that are no merges, and once the base, as fast as a merge."""
        if entry.role == "base":
            return split == "search"
        return is_timed(entry.candidate, self.campaign.asked_costs, split)

    def _score(
        self, jobs: Sequence[Job], pace: Pace, record: Callable[[Job, Outcome], object]
    ) -> None:
        for job, outcome in in_turn(self.pool, jobs):
            if isinstance(job, Job) and isinstance(outcome, Outcome):
                record(job, outcome)
                pace.step(failed=outcome.failure is not None)

    def _members(self, split: Split) -> Members:
        """Return what the store knows of the models that were scored on a split."""
        found = Members(self.campaign, self.items.higher_is_better)
        for one in self.store.evaluations():
            if one.split == split:
                found.keep(one.candidate, one.outcome)
        return found

    def told(self, jobs: Sequence[TargetJob]) -> dict[str, Targets]:
        """Let teachers read items, once a campaign, and return what they say: task → targets."""
        arrays = self.store.arrays
        asked = [job for job in jobs if not arrays.has(key_of(job))]
        pace = Pace(self.display, "teachers", len(asked)) if asked else None
        for job, found in in_turn(self.pool, asked):
            assert isinstance(job, TargetJob)
            assert isinstance(found, TargetsFound)
            if found.failure is None:
                arrays.keep(key_of(job), to_bytes(found.targets))
            else:
                self.display.say(f"{job.name} says nothing: {found.failure.reason}")
            if pace is not None:
                pace.step(failed=found.failure is not None)
        known = [job for job in jobs if arrays.has(key_of(job))]
        return {job.task: from_bytes(arrays.get(key_of(job))) for job in known}

    def _likelihoods(self) -> list[str]:
        """Return the tasks whose select items all have a gold answer, if the sampler descends at all."""
        if not sampler_class(self.campaign).needs_gold:
            return []
        tasks = [goal.task for goal in self.campaign.objectives]
        return [task for task in tasks if not self.items.gold_faults(task, "select")]

    def _divergences(self, split: Split) -> list[TargetJob]:
        """Return what teachers are asked so that models' divergence from them is reported."""
        from evomerge.scoring import backend_type

        if split == "search" or not backend_type(self.campaign.scorer.backend).gradients:
            return []
        tasks = [
            goal.task
            for goal in self.campaign.objectives
            if goal.report == TEACHER_DIVERGENCE
            or (goal.prompts is not None and not self.items.gold_faults(goal.task, split))
        ]
        better = self.items.higher_is_better
        return teacher_jobs(self.campaign, self.store.evaluations(), better, split, tasks)


def _row(entry: Entry, outcome: Outcome) -> RowScored:
    seconds = outcome.cost.merge_seconds + outcome.cost.score_seconds
    failure = None if outcome.failure is None else outcome.failure.reason
    return RowScored(entry.name, entry.role, by_task(outcome), seconds, failure)
