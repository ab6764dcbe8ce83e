"""Campaigns on made-up or recorded outcomes, with a virtual clock: hours of a cluster in seconds.

The search is the real one: loop, study, sampler, races, results folder, and the pool with what it does when
workers die. Workers are not: they answer from a function, in virtual time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np

from evomerge.candidate.cost import Cost
from evomerge.candidate.trial import (
    Estimate,
    Failure,
    FailureKind,
    GradientJob,
    Gradients,
    Job,
    Outcome,
    TaskScores,
)
from evomerge.config import Campaign, Search
from evomerge.errors import CampaignError
from evomerge.loggers import Callback, TrialEnded
from evomerge.merge.methods import METHODS
from evomerge.objective import Objectives, References
from evomerge.progress import NoDisplay
from evomerge.racing import blocks, give_up
from evomerge.search.history import Known
from evomerge.search.loop import explore
from evomerge.search.racing import race_of
from evomerge.search.samplers import sampler_class
from evomerge.search.samplers.unit_cube import UnitCube
from evomerge.search.study import Study
from evomerge.search.tally import GRADIENT_COST
from evomerge.space import Space
from evomerge.store import Store
from evomerge.testing.simulated_nodes import SimulatedWorkers, VirtualClock
from evomerge.testing.simulated_ray import SimulatedRay, simulated_pool
from evomerge.workers import Evaluates

__all__ = ["Simulated", "SimulatedWorkers", "nearest", "simulate"]

Point = Mapping[str, float]
Values = Mapping[str, Sequence[float]]
"""Task → a value of its searched metric for each search item."""
Outcomes = Callable[[Point], Values | None]
"""What a candidate scores, by its point; None: it fails."""
GradientsAt = Callable[[Point, GradientJob], Gradients]


@dataclass(frozen=True)
class Simulated:
    """What came of a simulated search.

    Attributes:
        trials: Virtual seconds at which a trial was told, and the trial, in that order.
        seconds: How long the search took, in virtual time.
        ended: What ended it.
        busy: Of each worker, the share of the time that its node was there in which it had work.
        busy_before_end: The mean of these shares until work was last given to a worker, when there was
            some for each.
        lost: Trials that were asked for and never told.
        given_up: Trials that failed since worker after worker died of them.
        deaths: Workers that died at work.
        departures: Nodes that left.
        driver: Processor seconds that the driver had taken when each of `trials` was told, outcomes apart.
    """

    trials: tuple[tuple[float, TrialEnded], ...]
    seconds: float
    ended: str
    busy: tuple[float, ...]
    busy_before_end: float
    lost: int
    given_up: int
    deaths: int
    departures: int
    driver: tuple[float, ...]

    @property
    def best(self) -> tuple[tuple[float, float], ...]:
        """Virtual seconds at which the best value rose, and the value (`mode: mean`)."""
        rises: list[tuple[float, float]] = []
        for when, trial in self.trials:
            if trial.best is not None and (not rises or trial.best > rises[-1][1]):
                rises.append((when, trial.best))
        return tuple(rises)

    def best_at(self, seconds: float) -> float | None:
        """Return the best value after so many virtual seconds; None before the first."""
        return max((value for when, value in self.best if when <= seconds), default=None)


def simulate(
    campaign: Campaign,
    outcomes: Outcomes,
    *,
    workers: SimulatedWorkers = SimulatedWorkers(),  # noqa: B008 - frozen
    seconds: float | Callable[[Point], float] = 30.0,
    layers: int | None = None,
    gradients: GradientsAt | None = None,
    seed: int | None = None,
    charged: Callable[[], float] | None = None,
    folder: Path | None = None,
    **search: Any,  # noqa: ANN401 - as the campaign file has them
) -> Simulated:
    """Run a campaign's search on workers that do not exist.

    Its models need not exist, nor its tasks; merges only. Parents and naive merges that lie in the space are
    known beforehand, as in a real campaign. Everything is a function of the arguments, unless the driver's
    time is charged.

    Args:
        campaign: Space, objectives, search items, budget. `search.hours` are virtual ones.
        outcomes: What a candidate scores, such as `nearest` of an earlier campaign.
        workers: How many, how fast, how often they die, leave and join.
        seconds: That a worker of speed 1 takes for a candidate on all items; by its point.
        layers: Of the models; None: as many as the space has groups of.
        gradients: What the sampler `gradient` needs, by the numbers of the job's candidate.
        seed: Of the search and of what happens to workers; None: the campaign's.
        charged: Seconds of the driver that pass in virtual time too, such as `time.perf_counter`; None: it
            takes no time.
        folder: Where the results folder is made; None: it is removed.
        search: In the place of the campaign's `search` settings: `sampler="cmaes"`, `trials=100`.

    Raises:
        CampaignError: The space does not fit, or the sampler needs what is not there.
        CampaignStopped: The first candidates all failed alike.
        EvomergeError: Every node left, and none came within ten minutes.
    """
    chosen = campaign.search.model_dump() | search | ({} if seed is None else {"seed": seed})
    campaign = campaign.model_copy(update={"search": Search.model_validate(chosen)})
    campaign = _with_sampler(campaign, gradients)
    space = Space.of(campaign, layers or _layers(campaign), METHODS)
    clock = VirtualClock(charged)
    ray = SimulatedRay(workers, clock, campaign.search.seed)
    answers = _Answers(campaign, outcomes, seconds, gradients)
    aims, known = _references(campaign, space, answers)
    with TemporaryDirectory(prefix="evomerge-simulated-") as temporary:
        out = folder or Path(temporary) / "out"
        facts = {"items": {task: {"search": list(ids)} for task, ids in answers.items.items()}}
        with Store.create(out, campaign, facts, directions=aims.directions) as store:
            study = _Pointed(
                space,
                aims,
                store,
                known=known,
                counts={} if gradients is None else _counts(campaign),
                race=None if campaign.search.pruner == "none" else race_of(aims, answers.items),
            )
            answers.study = study
            return _run(campaign, store, study, answers, ray, clock)


def nearest(folder: Path | str) -> Outcomes:
    """Return outcomes as a finished campaign's: of each point those of its nearest trial.

    A search on them cannot find what the campaign did not; trials that were given up or failed count for
    nothing. The space and the items must be those of the campaign.

    Args:
        folder: Its results folder.

    Raises:
        ResultsError: It holds no campaign.
        ValueError: It holds no complete trial.
    """
    with Store.open(Path(folder), write=False) as store:
        metrics = {goal.task: goal.metric for goal in store.campaign.objectives}
        cube = UnitCube(store.distributions())
        done = [(trial.params, trial.outcome) for trial in store.trials() if trial.values]
        table = [
            (cube.to_unit(params), {t: outcome.scores[t].metrics[m] for t, m in metrics.items()})
            for params, outcome in done
            if outcome is not None and outcome.pruned is None
        ]
    if not table:
        raise ValueError(f"{folder} holds no complete trial")
    points = np.array([point for point, _ in table])

    def outcomes(params: Point) -> Values:
        apart = ((points - cube.to_unit(params)) ** 2).sum(axis=1)
        return table[int(apart.argmin())][1]

    return outcomes


class _Pointed(Study):
    """A study that tells where its running work is."""

    def point(self, work: Job | GradientJob) -> Point:
        """Return the point of the space that running work is for."""
        if isinstance(work, GradientJob):
            return self._steps[work.name].params
        return self._params[work.entry.number or 0]


class _Answers:
    """What simulated workers answer, with how long it takes them: scores and gradients, all a search asks."""

    study: _Pointed

    def __init__(
        self,
        campaign: Campaign,
        outcomes: Outcomes,
        seconds: float | Callable[[Point], float],
        gradients: GradientsAt | None,
    ) -> None:
        self.outcomes, self._seconds, self._gradients = outcomes, seconds, gradients
        self._metrics = {goal.task: goal.metric for goal in campaign.objectives}
        self._count = campaign.items_per_trial
        self.items = {
            task: tuple(f"{task}-{number:06}" for number in range(campaign.items.search))
            for task in self._metrics
        }

    def evaluate(self, job: Job) -> Outcome:
        """Score a candidate, block by block in a race."""
        point, race = self.study.point(job), job.race
        values = self.outcomes(point)
        if values is None or race is None:
            return self.scored(point, values)
        cut = blocks(race)
        for done in range(1, len(cut) + 1):
            where = {
                task: sorted(number for block in cut[:done] for number in block.get(task, ()))
                for task in self._metrics
            }
            found = self.scored(point, values, where)
            pruned = None if done == len(cut) else give_up(race, found.scores, done)
            if pruned is not None:
                break
        return Outcome(found.scores, cost=found.cost, worker=found.worker, pruned=pruned)

    def scored(
        self, point: Point, values: Values | None, where: Mapping[str, Sequence[int]] | None = None
    ) -> Outcome:
        """Return values as an outcome, on all items or some."""
        if values is None:
            cost = Cost(score_seconds=self._took(point, self._count))
            return Outcome(failure=Failure(FailureKind.MERGE, "it fails"), cost=cost)
        scores, count = {}, 0
        for task, metric in self._metrics.items():
            ids = self.items[task]
            if len(values[task]) != len(ids):
                raise ValueError(f"{len(values[task])} values of {task}, expected {len(ids)}")
            chosen = range(len(ids)) if where is None else where[task]
            found = tuple(float(values[task][number]) for number in chosen)
            mean = Estimate(float(np.mean(found)) if found else 0.0)
            names = ids if where is None else tuple(ids[number] for number in chosen)
            scores[task] = TaskScores(names, {metric: found}, {metric: mean})
            count += len(found)
        cost = Cost(score_seconds=self._took(point, count), items=count)
        return Outcome(scores, cost=cost, worker="simulated")

    def gradient(self, job: GradientJob) -> Gradients:
        """Take a gradient."""
        assert self._gradients is not None
        point = self.study.point(job)
        seconds = self._took(point, GRADIENT_COST * job.count)
        found = self._gradients(point, job)
        return Gradients(
            found.loss,
            found.losses,
            found.numbers,
            found.failure,
            Cost(score_seconds=seconds, items=job.count),
            "simulated",
            found.rows,
        )

    def _took(self, point: Point, items: int) -> float:
        whole = self._seconds(point) if callable(self._seconds) else self._seconds
        return whole * items / self._count


class _Notes(Callback):
    """Notes when trials end."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock, self._before = clock, time.process_time() - clock.outside
        self.trials: list[tuple[float, TrialEnded]] = []
        self.driver: list[float] = []

    def on_trial(self, trial: TrialEnded) -> None:
        """Note one."""
        self.trials.append((self._clock.monotonic(), trial))
        self.driver.append(time.process_time() - self._clock.outside - self._before)


def _run(
    campaign: Campaign,
    store: Store,
    study: _Pointed,
    answers: _Answers,
    ray: SimulatedRay,
    clock: VirtualClock,
) -> Simulated:
    ordered = campaign.search.deterministic
    pool, notes = (
        simulated_pool(lambda: cast("Evaluates", answers), ray, clock, ordered=ordered),
        _Notes(clock),
    )
    explore(campaign, store, study, pool, NoDisplay(), notes, clock=clock.monotonic)
    now = clock.monotonic()
    pool.close(force=True)
    failures = [trial.failure or "" for _, trial in notes.trials]
    return Simulated(
        trials=tuple(notes.trials),
        seconds=now,
        ended=str(store.ended),
        busy=tuple(ray.busy(now)),
        busy_before_end=fmean(ray.busy(ray.given)),
        lost=study.tally.asked - study.tally.told,
        given_up=sum("workers died of it" in reason for reason in failures),
        deaths=ray.deaths,
        departures=ray.departures,
        driver=tuple(notes.driver),
    )


def _with_sampler(campaign: Campaign, gradients: GradientsAt | None) -> Campaign:
    """Choose a sampler where the campaign leaves it open."""
    search = campaign.search
    if search.sampler == "auto":
        without = "cmaes" if campaign.mode == "mean" else "nsga2"
        name = without if gradients is None else "gradient"
        search = search.model_copy(update={"sampler": name})
        campaign = campaign.model_copy(update={"search": search})
    if sampler_class(campaign).needs_gold and gradients is None:
        message = f"{search.sampler} needs `gradients`; use cmaes"
        raise CampaignError(message, field="search.sampler")
    return campaign


def _layers(campaign: Campaign) -> int:
    groups = campaign.space.layers
    if isinstance(groups, int):
        return groups
    if isinstance(groups, str):
        raise CampaignError("each layer is a group; say how many `layers` the models have")
    return max(stop for _, stop in groups)


def _counts(campaign: Campaign) -> dict[str, int]:
    return {goal.task: campaign.items.search for goal in campaign.objectives}


def _references(
    campaign: Campaign, space: Space, answers: _Answers
) -> tuple[Objectives, list[Known]]:
    """Score the parents and naive merges that lie in the space."""
    known: list[Known] = []
    found: dict[str, dict[str, Outcome]] = {"base": {}, "expert": {}, "baseline": {}}
    for row in space.baselines():
        if row.params is None:
            continue
        outcome = answers.scored(row.params, answers.outcomes(row.params))
        if outcome.failure is None:
            known.append(Known(outcome, row.params, row.candidate))
            found[row.role][row.name] = outcome
    base = next(iter(found["base"].values()), None)
    return Objectives(campaign, References(base, found["expert"], found["baseline"])), known
