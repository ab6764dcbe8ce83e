"""One campaign from start to end: parents and baselines, search, select, holdout, save, report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from evomerge.candidate.trial import Entry, Race, Targets
from evomerge.config import Campaign
from evomerge.errors import CampaignStopped
from evomerge.kinds import kind_of
from evomerge.loggers import Callback
from evomerge.objective import Objectives
from evomerge.preflight.answers import answered, without_tasks
from evomerge.preflight.check import Preflight, preflight
from evomerge.preflight.facts import facts_of, refuse_changes
from evomerge.preflight.warm_start import first_points
from evomerge.progress import Display, NoDisplay
from evomerge.report.card import model_card
from evomerge.report.failures import why_nothing_scored
from evomerge.report.formats import render
from evomerge.report.front import front_json
from evomerge.report.leaderboard import Leaderboard, leaderboard
from evomerge.report.notes import zero_notes
from evomerge.result import BEST, Result, entry
from evomerge.scoring import gold_count
from evomerge.search.activations import take_statistics
from evomerge.search.bench import Bench
from evomerge.search.callbacks import told
from evomerge.search.history import Known
from evomerge.search.loop import explore
from evomerge.search.racing import race_of, unbounded
from evomerge.search.samplers import sampler_class
from evomerge.search.selection import (
    choose_winner,
    compared_baselines,
    pick_finalists,
    references_of,
)
from evomerge.search.study import Study
from evomerge.search.teachers import teacher_jobs
from evomerge.space import Baseline
from evomerge.space.baselines import regression
from evomerge.store import Store, keep_texts, refuse_existing
from evomerge.workers import Pool, Started, WorkerSetup, open_pool
from evomerge.workers.imports import import_quickly


def search(
    campaign: Campaign,
    *,
    file: Path | None = None,
    force: bool = False,
    address: str | None = None,
    display: Display | None = None,
    started: Started | None = None,
    callbacks: Sequence[Callback] = (),
) -> Result:
    """Run a campaign in a new results folder.

    Args:
        campaign: The settings.
        file: Where they were read from, for the lines in error messages.
        force: Replace an existing results folder.
        address: A Ray cluster to join; None starts Ray on this machine.
        display: Shows progress.
        started: Workers that were started already, by the campaign's settings.
        callbacks: Who is told of it, beside the campaign's loggers.

    Raises:
        UserError: Something in the campaign, its models or tasks is wrong; nothing is written then.
        CampaignStopped: The first candidates all failed alike.
    """
    display = display or NoDisplay()
    folder = Path(campaign.out)
    refuse_existing(folder, force=force)
    for note in campaign.notes:
        display.say(note)
    ready = preflight(campaign, file)
    with ExitStack() as stack:
        answers = None
        if ready.prompts:
            answers = Path(stack.enter_context(TemporaryDirectory(prefix="evomerge-answers-")))
            with _workers(without_tasks(ready), address, started, stay=started is not None) as pool:
                ready = answered(ready, pool, display, answers, file)
        facts = facts_of(ready, first_points(ready, file))
        better = ready.items.higher_is_better
        pool = stack.enter_context(_workers(ready, address, started))
        store = stack.enter_context(
            Store.create(
                folder,
                ready.campaign,
                facts,
                directions=Objectives(ready.campaign, better=better).directions,
                force=force,
                tasks=answers,
                methods=None if ready.methods is None else ready.methods.source,
            )
        )
        for split in ready.items.splits:
            keep_texts(store.arrays, split, ready.items.texts(split))
        return _run(store, ready, pool, display, callbacks)


def resume(
    folder: Path,
    *,
    trials: int = 0,
    workers: int | None = None,
    address: str | None = None,
    display: Display | None = None,
    started: Started | None = None,
    callbacks: Sequence[Callback] = (),
) -> Result:
    """Go on where a campaign stopped.

    Args:
        folder: The results folder.
        trials: Trials to add to the budget.
        workers: Number of workers from now on; None: as before.
        address: A Ray cluster to join.
        display: Shows progress.
        started: Workers that were started already, by the campaign's settings.
        callbacks: Who is told of it, beside the campaign's loggers.

    Raises:
        ResultsError: The folder holds no campaign, is in use, or its models, tasks or libraries changed.
    """
    display = display or NoDisplay()
    with Store.open(folder, write=True) as store:
        if store.saving and not trials:
            return _saved(store, display, callbacks)
        campaign = store.campaign
        if workers is not None:
            settings = campaign.workers.model_copy(update={"count": workers})
            campaign = campaign.model_copy(update={"workers": settings})
        ready = preflight(campaign, results=store.folder)
        for warning in refuse_changes(store, facts_of(ready)):
            display.say(warning)
        with _workers(ready, address, started) as pool:
            store.finish(
                False
            )  # before the budget: a process killed in between leaves more to do, not less
            store.extend(trials)
            return _run(store, _with_budget_of(ready, store), pool, display, callbacks)


def _saved(store: Store, display: Display, callbacks: Sequence[Callback]) -> Result:
    """Save a winner that was chosen when an expert joined or left, as those who were killed then would."""
    winner = entry(store, BEST).entry
    with told(store, callbacks, display) as callback:
        board = leaderboard(store)
        save_winner(store, winner, board, display)
        store.finish()
        result = Result(Path(store.folder), board, winner)
        callback.on_end(result)
    return result


def _with_budget_of(ready: Preflight, store: Store) -> Preflight:
    """Return a checked campaign with what `extend` added to the budget; a refused one is as it was."""
    budget = {"trials": store.campaign.search.trials}
    search = ready.campaign.search.model_copy(update=budget)
    return replace(ready, campaign=ready.campaign.model_copy(update={"search": search}))


@contextmanager
def _workers(
    ready: Preflight, address: str | None, started: Started | None, *, stay: bool = False
) -> Iterator[Pool]:
    """Let workers load while the driver goes on; whatever goes wrong, they end at once.

    Those that `stay` may be opened again; who started them ends them.
    """
    campaign = ready.campaign
    pool = open_pool(
        setup_of(ready),
        campaign.workers,
        address=address,
        ordered=campaign.search.deterministic,
        started=started,
    )
    try:
        yield pool
    finally:
        if not stay:
            pool.close(force=True)


def _run(
    store: Store, ready: Preflight, pool: Pool, display: Display, callbacks: Sequence[Callback]
) -> Result:
    """Tell the whole story, also to loggers and callbacks."""
    with told(store, callbacks, display) as callback:
        result = _result(store, ready, pool, display, callback)
        callback.on_end(result)
    return result


def _result(
    store: Store, ready: Preflight, pool: Pool, display: Display, callback: Callback
) -> Result:
    """Go through every step; each skips what the store already holds."""
    campaign = ready.campaign
    store.finish(False)
    import_quickly("scipy.stats")  # the reports' and some samplers', while workers load
    pool.wait_ready()
    bench = Bench(store, ready.campaign, ready.items, pool, display, callback)
    baselines = ready.space.baselines()
    experts = [row.entry for row in baselines if row.role == "expert"]
    merge = regression(ready.family.family)
    take_statistics(bench, experts, ready.space.needs.statistics, merge)
    if bench.score("parents and baselines", _candidates(baselines), "search"):
        board = leaderboard(store)
        for note in zero_notes(board.rows, board.campaign.goals, "search"):
            display.say(note)
    aims = Objectives.of(campaign, store.facts, references_of(store), "search")
    aims.check()
    counts = _gold_counts(ready)
    study = Study(
        ready.space,
        aims,
        store,
        known=_known(store, baselines),
        first=store.facts.get("first", ()),
        counts=counts,
        race=_race(ready, aims, display),
        targets=_targets(ready, store, bench, counts) if sampler_class(campaign).needs_gold else {},
    )
    explore(campaign, store, study, pool, display, callback)
    if study.tally.gradient_failure is not None:
        display.say(f"a descent ended early: {study.tally.gradient_failure}")
    winner = _selected(ready, study, store, bench, baselines)
    compared = compared_baselines(store, baselines)
    bench.score("holdout", [*_candidates(compared), winner], "holdout")
    with ThreadPoolExecutor(1) as beside:  # Ray takes a second and a half to end
        closed = beside.submit(pool.close)
        board = leaderboard(store)
        save_winner(store, winner, board, display)
        store.finish()
    closed.result()
    return Result(Path(store.folder), board, winner)


def _known(store: Store, baselines: Sequence[Baseline]) -> list[Known]:
    """Return parents and naive merges that were scored, each with its point where it has one."""
    scored = [(row, store.evaluation(row.key, "search")) for row in baselines]
    return [
        Known(outcome, params, row.candidate)
        for row, outcome in scored
        if outcome is not None and outcome.failure is None
        for params in (row.params, *row.also_at)
    ]


def _gold_counts(ready: Preflight) -> dict[str, int]:
    """Return how many search items of each task have a gold answer, without the tasks that have none."""
    counts = {goal.task: gold_count(ready.items, goal.task) for goal in ready.campaign.objectives}
    return {task: count for task, count in counts.items() if count}


def _targets(
    ready: Preflight, store: Store, bench: Bench, counts: Mapping[str, int]
) -> dict[str, Targets]:
    """Return what each task's teacher says of its search items, computed once a campaign."""
    jobs = teacher_jobs(ready.campaign, references_of(store), ready.items.higher_is_better)
    return bench.told([job for job in jobs if job.task in counts])


def _race(ready: Preflight, aims: Objectives, display: Display) -> Race | None:
    campaign = ready.campaign
    if campaign.search.pruner == "none":
        return None
    fault = unbounded(aims)
    if fault is not None:
        display.say(f"no racing, every candidate is scored in full: {fault}")
    ids = {goal.task: ready.items.ids(goal.task, "search") for goal in campaign.objectives}
    return race_of(aims, ids)


def _selected(
    ready: Preflight, study: Study, store: Store, bench: Bench, baselines: Sequence[Baseline]
) -> Entry:
    """Score finalists on `select`, and make the best of all that were ever scored there the winner."""
    chosen, copies = pick_finalists(
        study.finalists(),
        ready.campaign.search.finalists,
        baselines,
        lambda one: kind_of(one).content(one, ready.family.checkpoints),
    )
    if not chosen and not copies:
        why = why_nothing_scored(store)
        raise CampaignStopped(f"no trial was scored, so nothing can be saved{why}")
    bench.score("select", [*_candidates(baselines), *chosen], "select")
    found = choose_winner(store, chosen, copies, study.path)
    if found is None:
        why = why_nothing_scored(store)
        raise CampaignStopped(f"every finalist failed on the select items{why}")
    winner, how = found
    bench.score("select", [winner], "select")  # a copy of a naive merge was not, yet
    store.choose(winner, how)
    return winner


def _candidates(rows: Iterable[Baseline]) -> list[Entry]:
    return [row.entry for row in rows]


def save_winner(store: Store, winner: Entry, board: Leaderboard, display: Display) -> None:
    """Write the winner's model with its card, in the place of an earlier one, and the reports."""
    folder = Path(store.folder)
    display.say(f"saving {winner.name} to {folder / 'best'}")
    card = model_card(store, board)
    campaign = store.campaign
    kind_of(winner.candidate).save(
        winner.candidate,
        folder / "best",
        card=card,
        trust_remote_code=campaign.models.trust_remote_code,
        allow_pickle=campaign.models.allow_pickle,
        replace=True,
    )
    write_reports(store, board)


def write_reports(store: Store, board: Leaderboard) -> None:
    """Write the leaderboard's files."""
    store.write_file("leaderboard.json", render(board, "json"))
    store.write_file("leaderboard.md", render(board, "markdown"))
    if store.campaign.mode != "mean":
        store.write_file("front.json", front_json(store))


def setup_of(ready: Preflight) -> WorkerSetup:
    """Return what the workers of a checked campaign need to start."""
    campaign = ready.campaign
    return WorkerSetup(
        models=(ready.family.family.base, *ready.family.family.experts.values()),
        dtype=campaign.models.dtype,
        requests=ready.requests,
        tasks_path=campaign.tasks_path,
        plan=ready.plan,
        prompt=ready.prompt,
        batch_tokens=campaign.workers.batch_tokens,
        device="cuda" if campaign.workers.gpus else "cpu",
        gpus=max(1, int(campaign.workers.gpus)),
        trust_remote_code=campaign.models.trust_remote_code,
        allow_pickle=campaign.models.allow_pickle,
        backend=None if campaign.scorer.backend == "resident" else campaign.scorer.backend,
        backend_arguments=campaign.scorer.args,
        at_once=campaign.scorer.at_once,
        allow_unsafe_code=campaign.scorer.allow_unsafe_code,
        methods=campaign.space.methods,
        method_file=ready.methods,
        results=str(ready.results.absolute()),
        vocabulary=ready.family.family.vocabulary,
        whole_models=ready.space.needs.whole_models,
        feed_forwards=ready.space.needs.feed_forwards,
        one_pass=ready.one_pass,
        quantise=campaign.scorer.quantise,
    )
