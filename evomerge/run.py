"""One campaign from start to end: parents and baselines, search, select, holdout, save, report."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge import merge, report
from evomerge.campaign import Campaign
from evomerge.check import Preflight, preflight
from evomerge.errors import CampaignStopped, ResultsError
from evomerge.progress import Display, NoDisplay, Pace
from evomerge.recipe import Recipe
from evomerge.search import Study, directions, objective_values
from evomerge.space import Baseline
from evomerge.store import Direction, Store
from evomerge.trial import Candidate, Job, Outcome, Split
from evomerge.workers import Assignment, Pool, open_pool

FIRST_CANDIDATES = 5
"""A campaign whose first candidates all fail alike stops and says why."""


@dataclass(frozen=True)
class Result:
    """What a finished campaign leaves.

    Attributes:
        folder: The results folder; the merged model is in `folder/best`.
        best: The winner.
        leaderboard: Parents, baselines, finalists and the winner.
    """

    folder: Path
    best: Candidate
    leaderboard: report.Leaderboard

    def to_pandas(self) -> Any:  # noqa: ANN401 - pandas is no dependency of ours
        """Return all trials as a pandas DataFrame: number, state, values, parameters, seconds."""
        import pandas  # type: ignore[import-untyped]

        with Store.open(self.folder, write=False) as store:
            return pandas.DataFrame([trial.to_row() for trial in store.trials()])

    @property
    def study(self) -> Any:  # noqa: ANN401 - an optuna.Study
        """The Optuna study in `study.db`."""
        with Store.open(self.folder, write=False) as store:
            return store.optuna_study()


def search(
    campaign: Campaign,
    *,
    file: Path | None = None,
    force: bool = False,
    address: str | None = None,
    display: Display | None = None,
) -> Result:
    """Run a campaign in a new results folder.

    Args:
        campaign: The settings.
        file: Where they were read from, for the lines in error messages.
        force: Replace an existing results folder.
        address: A Ray cluster to join; None starts Ray on this machine.
        display: Shows progress.

    Raises:
        UserError: Something in the campaign, its models or tasks is wrong; nothing is written then.
        CampaignStopped: The first candidates all failed alike.
    """
    display = display or NoDisplay()
    folder = Path(campaign.out)
    Store.refuse_existing(folder, force=force)
    ready = preflight(campaign, file)
    with Store.create(
        folder, campaign, _facts(ready), directions=_directions(ready), force=force
    ) as store:
        return _run(store, ready, address, display)


def resume(
    folder: Path,
    *,
    trials: int = 0,
    workers: int | None = None,
    address: str | None = None,
    display: Display | None = None,
) -> Result:
    """Go on where a campaign stopped.

    Args:
        folder: The results folder.
        trials: Trials to add to the budget.
        workers: Number of workers from now on; None: as before.
        address: A Ray cluster to join.
        display: Shows progress.

    Raises:
        ResultsError: The folder holds no campaign, is in use, or its models, tasks or libraries changed.
    """
    display = display or NoDisplay()
    with Store.open(folder, write=True) as store:
        store.extend(trials)
        campaign = store.campaign
        if workers is not None:
            settings = campaign.workers.model_copy(update={"count": workers})
            campaign = campaign.model_copy(update={"workers": settings})
        ready = preflight(campaign)
        _refuse_changes(store, _facts(ready))
        return _run(store, ready, address, display)


def _run(store: Store, ready: Preflight, address: str | None, display: Display) -> Result:
    """Tell the whole story; every step skips what the store already holds."""
    campaign, workers = ready.campaign, ready.campaign.workers
    with _opened(
        open_pool(
            _assignment(ready),
            count=workers.count,
            cpus=workers.cpus,
            gpus=workers.gpus,
            address=address,
        )
    ) as pool:
        bench = _Bench(store, campaign, pool, display)
        baselines = ready.space.baselines()
        better = ready.items.higher_is_better
        study = Study(ready.space, campaign.search, _directions(ready), store, better=better)
        bench.score("parents and baselines", baselines, "search")
        for baseline in baselines:
            outcome = store.evaluation(baseline.name, "search")
            if baseline.params is not None and outcome is not None and outcome.failure is None:
                values = objective_values(campaign, outcome, "search", better)
                study.add_baseline(baseline.params, values)
        _explore(bench, study)
        finalists = _finalists(study, campaign.search.finalists)
        bench.score("select", [*baselines, *finalists], "select")
        winner = _winner(store, finalists)
        compared = report.compared_baselines(store, baselines)
        bench.score("holdout", [*compared, _Entry(winner.name, "winner", winner)], "holdout")
    leaderboard = report.leaderboard(store)
    _save(store, winner, leaderboard, display)
    return Result(Path(store.folder), winner, leaderboard)


def _explore(bench: _Bench, study: Study) -> None:
    """Keep every worker busy until the budget is spent; tell each outcome as it comes."""
    settings, store, pool = bench.campaign.search, bench.store, bench.pool
    deadline = None if settings.hours is None else time.monotonic() + 3600 * settings.hours
    waiting = list(study.interrupted())
    pace = Pace(bench.display, "search", settings.trials, study.told, study.failed)
    running = 0
    while True:
        while pool.free:
            if waiting:
                candidate = waiting.pop(0)
            elif _spent(bench.campaign, study, deadline):
                break
            else:
                candidate = study.ask()
            pool.submit(Job(candidate, "search", bench.metrics("search")))
            running += 1
        if not running:
            return
        job, outcome = pool.next()
        running -= 1
        failed = study.failed
        study.tell(job.candidate, outcome)  # a score that is no finite number is a failure, too
        pace.step(failed=study.failed > failed, best=study.best_value)
        if study.told == FIRST_CANDIDATES:
            _stop_if_all_fail(store)


def _spent(campaign: Campaign, study: Study, deadline: float | None) -> bool:
    budget = campaign.search
    items = len(campaign.objectives) * campaign.items.search
    return (
        study.asked >= budget.trials
        or (deadline is not None and time.monotonic() >= deadline)
        or (
            budget.item_evaluations is not None
            and (study.asked + 1) * items > budget.item_evaluations
        )
    )


def _stop_if_all_fail(store: Store) -> None:
    outcomes = [trial.outcome for trial in store.trials() if trial.outcome is not None]
    failures = [outcome.failure for outcome in outcomes]
    kinds = {failure.kind for failure in failures if failure is not None}
    if None not in failures and len(kinds) == 1 and failures[0] is not None:
        raise CampaignStopped(
            f"the first {FIRST_CANDIDATES} candidates all failed alike ({failures[0].kind}): "
            f"{failures[0].reason}"
        )


@dataclass(frozen=True)
class _Entry:
    """A row of the leaderboard that is still to be scored."""

    name: str
    kind: str
    candidate: Candidate

    @property
    def recipe(self) -> Recipe:
        return self.candidate.recipe


def _finalists(study: Study, count: int) -> list[_Entry]:
    ranked = [ranked.candidate for ranked in study.ranking()]
    if not ranked:
        raise CampaignStopped("no trial was scored, so there is no model to save; see the failures")
    return [_Entry(candidate.name, "finalist", candidate) for candidate in ranked[:count]]


def _winner(store: Store, finalists: Iterable[_Entry]) -> Candidate:
    """Return the finalist with the best weighted mean on `select`, the earlier of equals."""
    scored: list[tuple[float, Candidate]] = []
    for entry in finalists:
        outcome = store.evaluation(entry.name, "select")
        if outcome is not None and outcome.failure is None:
            scored.append((report.selection_value(store, outcome), entry.candidate))
    if not scored:
        raise CampaignStopped("every finalist failed on the select items")
    return max(scored, key=lambda pair: pair[0])[1]


class _Bench:
    """Scores rows that are no trials, all at once, each once."""

    def __init__(self, store: Store, campaign: Campaign, pool: Pool, display: Display) -> None:
        self.store, self.campaign, self.pool, self.display = store, campaign, pool, display

    def metrics(self, split: Split) -> dict[str, tuple[str, ...]]:
        """The searched metric; on select and holdout the reported one beside it."""
        return {
            goal.task: tuple(dict.fromkeys([goal.metric, *([goal.report] * (split != "search"))]))
            for goal in self.campaign.objectives
        }

    def score(self, stage: str, rows: Iterable[Baseline | _Entry], split: Split) -> None:
        """Score what the store does not hold yet, and record it."""
        missing = [row for row in rows if self.store.evaluation(row.name, split) is None]
        kinds = {row.name: row.kind for row in missing}
        jobs = iter([Job(_candidate(row), split, self.metrics(split)) for row in missing])
        pace = Pace(self.display, stage, len(missing))
        for job, outcome in _in_turn(self.pool, jobs):
            self.store.record(job, outcome, kinds[job.candidate.name])
            pace.step(failed=outcome.failure is not None)


def _candidate(row: Baseline | _Entry) -> Candidate:
    return row.candidate if isinstance(row, _Entry) else Candidate(row.name, row.recipe)


def _in_turn(pool: Pool, jobs: Iterator[Job]) -> Iterator[tuple[Job, Outcome]]:
    running = 0
    while True:
        while pool.free and (job := next(jobs, None)) is not None:
            pool.submit(job)
            running += 1
        if not running:
            return
        yield pool.next()
        running -= 1


def _save(store: Store, winner: Candidate, board: report.Leaderboard, display: Display) -> None:
    folder = Path(store.folder)
    display.say(f"saving {winner.name} to {folder / 'best'}")
    card = report.model_card(store, board)
    campaign = store.campaign
    merge.save(
        winner.recipe,
        folder / "best",
        card=card,
        trust_remote_code=campaign.models.trust_remote_code,
        allow_pickle=campaign.models.allow_pickle,
        replace=True,
    )
    store.write_file("leaderboard.json", report.render(board, "json"))
    store.write_file("leaderboard.md", report.render(board, "markdown"))


def _assignment(ready: Preflight) -> Assignment:
    campaign = ready.campaign
    return Assignment(
        models=(ready.family.family.base, *ready.family.family.experts.values()),
        dtype=campaign.models.dtype,
        requests=ready.requests,
        tasks_path=campaign.tasks_path,
        plan=ready.plan,
        prompt=ready.prompt,
        batch_tokens=campaign.workers.batch_tokens,
        device="cuda" if campaign.workers.gpus else "cpu",
        trust_remote_code=campaign.models.trust_remote_code,
        allow_pickle=campaign.models.allow_pickle,
        backend=None if campaign.scorer.backend == "resident" else campaign.scorer.backend,
        backend_arguments=campaign.scorer.args,
        allow_unsafe_code=campaign.scorer.allow_unsafe_code,
    )


def _facts(ready: Preflight) -> dict[str, Any]:
    """What a result depends on beside the campaign: versions, models, prompts, items, directions."""
    names = ("evomerge", "torch", "transformers", "lm_eval", "optuna")
    return {
        "versions": {name: importlib.metadata.version(name) for name in names},
        "models": dict(ready.family.hashes),
        "prompts": dict(ready.items.digests),
        "higher_is_better": {
            goal.task: {
                metric: ready.items.higher_is_better(goal.task, metric)
                for metric in (goal.metric, goal.report)
            }
            for goal in ready.campaign.objectives
        },
        "items": {
            goal.task: {
                split: list(ready.items.ids(goal.task, split))
                for split in ("search", "select", "holdout")
            }
            for goal in ready.campaign.objectives
        },
    }


def _directions(ready: Preflight) -> tuple[Direction, ...]:
    return directions(ready.campaign, ready.items.higher_is_better)


def _refuse_changes(store: Store, now: Mapping[str, Any]) -> None:
    """Refuse to mix results of unlike models, prompts, items, or major versions."""
    before = store.facts
    for what in ("models", "prompts", "items"):
        for name, value in before[what].items():
            if now[what].get(name) != value:
                raise ResultsError(
                    f'the {what} changed since the campaign began: "{name}" is not what it was; '
                    "start a new campaign with another --out",
                    file=store.folder,
                )
    for library in ("optuna", "lm_eval"):
        old, new = before["versions"][library], now["versions"][library]
        if old.split(".")[0] != new.split(".")[0] or (library == "lm_eval" and old != new):
            raise ResultsError(
                f"the campaign ran with {library} {old}, found {new}; install {library}=={old} to "
                "resume it",
                file=store.folder,
            )


@contextmanager
def _opened(pool: Pool) -> Iterator[Pool]:
    finished = False
    try:
        yield pool
        finished = True
    finally:
        pool.close(force=not finished)
