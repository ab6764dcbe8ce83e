"""Campaigns, models and reports: search, resume, check, merge, score, report, compare, open.

Light: a wrong campaign file is answered before any heavy library is imported, and while those are,
workers start.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.config import Campaign
from evomerge.errors import UserError
from evomerge.preflight.typos import check_names
from evomerge.progress import Display, Style, shown_by
from evomerge.workers import started_workers
from evomerge.workers.imports import import_quickly

if TYPE_CHECKING:
    from evomerge.candidate import Candidate, Recipe
    from evomerge.candidate.trial import Split
    from evomerge.loggers import Callback
    from evomerge.merge.adapter_output import Truncated
    from evomerge.preflight.campaign_plan import Plan
    from evomerge.report.leaderboard import Leaderboard
    from evomerge.result import Result
    from evomerge.single import ModelScores


def search(
    campaign: Campaign | str | Path,
    *,
    out: str | Path | None = None,
    force: bool = False,
    trials: int | None = None,
    workers: int | None = None,
    seed: int | None = None,
    address: str | None = None,
    display: Display | Style = "none",
    callbacks: Sequence[Callback] = (),
) -> Result:
    """Run a campaign in a new results folder: search, save the best merged model, report.

    Args:
        campaign: The settings, or the file that states them.
        out: The results folder; None: the campaign's.
        force: Replace an existing results folder.
        trials: Budget of trials; None: the campaign's, and so are the next two.
        workers: Number of workers; 0: in this process.
        seed: Of the search.
        address: A Ray cluster to join: `auto`, `HOST:PORT` or `ray://HOST:PORT`; None: this machine.
        display: How progress is shown: `auto`, `rich`, `plain`, `json` or `none`; or a display of yours.
        callbacks: Who is told of trials, stages and the result, beside the campaign's loggers; each in a
            thread of its own. One that raises is left out from then on.

    Returns:
        The winner, the leaderboard and all trials.

    Raises:
        UserError: Something in the campaign, its models or tasks is wrong; nothing is written then.
        CampaignStopped: The first candidates all failed alike.
    """
    file = None if isinstance(campaign, Campaign) else Path(campaign)
    loaded = campaign if isinstance(campaign, Campaign) else Campaign.load(campaign)
    loaded = loaded.override(out=out, trials=trials, workers=workers, seed=seed)
    with shown_by(display) as shown:
        from evomerge.store import refuse_existing

        check_names(loaded, file)
        refuse_existing(Path(loaded.out), force=force)
        with started_workers(
            loaded.workers, address=address, ordered=loaded.search.deterministic
        ) as started:
            shown.say(f"{loaded.name}: starting")
            run = import_quickly("evomerge.run")
            result: Result = run.search(
                loaded,
                file=file,
                force=force,
                address=address,
                display=shown,
                started=started,
                callbacks=callbacks,
            )
        _announce(shown, result)
    return result


def resume(
    folder: str | Path,
    *,
    trials: int = 0,
    workers: int | None = None,
    address: str | None = None,
    display: Display | Style = "none",
    callbacks: Sequence[Callback] = (),
) -> Result:
    """Go on where a campaign stopped; a finished one is only read, unless trials are added.

    Args:
        folder: The results folder.
        trials: Trials to add to the budget.
        workers: Number of workers from now on; None: as before.
        address: A Ray cluster to join; None: this machine.
        display: How progress is shown, as for `search`.
        callbacks: Who is told, as for `search`; nobody is where nothing is left to do.

    Returns:
        As of `search`.

    Raises:
        ResultsError: The folder holds no campaign, is in use, or its models, tasks or libraries changed.
        CampaignStopped: The first candidates all failed alike.
    """
    with shown_by(display) as shown:
        from evomerge.store import Store

        with Store.open(Path(folder), write=False) as store:
            campaign = store.campaign
            nothing_to_do = not trials and store.finished and store.ended != "hours"
        if nothing_to_do and (Path(folder) / "best" / "config.json").is_file():
            result = open(folder)
        else:
            campaign = campaign.override(workers=workers)
            with started_workers(
                campaign.workers, address=address, ordered=campaign.search.deterministic
            ) as started:
                shown.say(f"{campaign.name}: starting")
                run = import_quickly("evomerge.run")
                result = run.resume(
                    Path(folder),
                    trials=trials,
                    workers=workers,
                    address=address,
                    display=shown,
                    started=started,
                    callbacks=callbacks,
                )
        _announce(shown, result)
    return result


def open(folder: str | Path) -> Result:
    """Read the results folder of a campaign, finished or still running.

    Args:
        folder: The results folder.

    Returns:
        What there is; `result.best` raises ResultsError as long as no winner was chosen.

    Raises:
        ResultsError: The folder holds no campaign.
    """
    from evomerge.result import Result
    from evomerge.store import Store

    with Store.open(Path(folder), write=False) as store:
        return Result.of(store)


def check(campaign: Campaign | str | Path) -> Plan:
    """Say what is wrong with a campaign, and what it will cost; nothing is written.

    Args:
        campaign: The settings, or the file that states them.

    Returns:
        Dimensions, workers, memory, disk, time, warnings.

    Raises:
        UserError: Naming file, line and field, what was found and what was expected.
    """
    file = None if isinstance(campaign, Campaign) else Path(campaign)
    loaded = campaign if isinstance(campaign, Campaign) else Campaign.load(campaign)
    check_names(loaded, file)
    planning = import_quickly("evomerge.preflight.campaign_plan")
    from evomerge.preflight.check import preflight as checked
    from evomerge.preflight.warm_start import first_points

    ready = checked(loaded, file)
    first_points(ready, file)
    plan: Plan = planning.plan(ready)
    return plan


def report(folder: str | Path) -> Leaderboard:
    """Return the leaderboard of a finished or running campaign.

    Args:
        folder: The results folder.

    Raises:
        ResultsError: The folder holds no campaign.
    """
    from evomerge.report.leaderboard import leaderboard
    from evomerge.store import Store

    with Store.open(Path(folder), write=False) as store:
        return leaderboard(store)


def compare(
    folders: Sequence[str | Path],
    format: str = "table",
    split: Split | None = None,
    *,
    html: str | Path | None = None,
    anyway: bool = False,
) -> str:
    """Write several campaigns side by side, the others against the first.

    Winners with intervals and paired differences on the items that both have, the best so far at equal
    effort, and the settings that differ.

    Args:
        folders: Two or more results folders.
        format: `table`, `markdown`, `json`, `csv` or `html`.
        split: Which items; None: the last that every campaign has scores on.
        html: A file that gets a page of the same, with figures.
        anyway: Compare also what is not comparable; the text says why it is not.

    Raises:
        ResultsError: They cannot be compared; the message names what differs.
    """
    from evomerge.report.comparison import compare_folders, write_comparison

    paths = [Path(folder) for folder in folders]
    if html is not None:
        write_comparison(paths, Path(html), split, anyway=anyway)
    return compare_folders(paths, format, split, anyway=anyway)


def merge(
    source: Candidate | Recipe | str | Path,
    out: str | Path,
    *,
    trial: int | str | None = None,
    methods: str | Path | None = None,
    device: str = "cpu",
    dtype: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    as_lora: int | None = None,
    max_shard_bytes: int | None = None,
    display: Display | Style = "none",
) -> int | Truncated | None:
    """Build one merged model and save it with its tokenizer, recipe and model card; or one adapter.

    Args:
        source: A candidate or a recipe; or a recipe's file, which may be any of mergekit's; or, with
            `trial`, a results folder.
        out: Folder of the model, which must not exist.
        trial: Of a results folder: the trial's number, or `best`: the winner.
        methods: A Python file that declares merge methods of yours; a results folder has its own.
        device: Where to compute.
        dtype: Of the file; None: the recipe's.
        trust_remote_code: Let models run code of their own.
        allow_pickle: Accept PyTorch pickles where there is no safetensors file.
        as_lora: Write the merge as one LoRA adapter of its base, of this rank at most. A weighted sum of
            adapters loses nothing at the sum of their ranks.
        max_shard_bytes: Largest file of weights, unless one tensor is larger; None: 5 GB.
        display: Shows progress.

    Returns:
        With `trial`: its number; None of a winner that is no trial. With `as_lora`: what the adapter has of
        the merge.

    Raises:
        UserError: The recipe, a model or the folder is wrong.
        MergeError: The maths has no answer, or the disk does not take the result.
    """
    settings: dict[str, Any] = {
        "device": device,
        "dtype": dtype,
        "trust_remote_code": trust_remote_code,
        "allow_pickle": allow_pickle,
    }
    if trial is not None and not isinstance(source, str | Path):
        raise UserError("a trial is one of a results folder; give the folder as source")
    if trial is not None and methods is not None:
        raise UserError("a results folder has its own file of methods; leave methods out")
    from evomerge.merge.user_methods import MethodFile, use

    if methods is not None:
        use(MethodFile.read(methods))
    if as_lora is not None:
        made: Truncated = import_quickly("evomerge.api.one_adapter").merge_as_adapter(
            source, Path(out), trial=trial, rank=as_lora, **settings
        )
        return made
    if max_shard_bytes is not None:
        settings["shard_bytes"] = max_shard_bytes
    with shown_by(display) as shown:
        number: int | None = import_quickly("evomerge.api.one_model").merge_as_model(
            source, Path(out), trial=trial, display=shown, **settings
        )
    return number


def score(
    model: str,
    tasks: str | Sequence[str] = (),
    *,
    campaign: str | Path | None = None,
    split: Split = "holdout",
    tasks_path: str | Path | None = None,
    num_fewshot: int | None = None,
    limit: int | None = None,
    dtype: str | None = None,
    device: str = "cpu",
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    allow_unsafe_code: bool = False,
) -> ModelScores:
    """Score any model on lm-eval tasks, or on the very items of a campaign.

    Args:
        model: A folder, a Hub id, `zoo:NAME`, `BASE+ADAPTER`, or an adapter that names its base.
        tasks: lm-eval tasks, groups, tags and patterns; or none, and `campaign`.
        campaign: A results folder: score on its items, by the metrics of its objectives.
        split: Which of the campaign's items.
        tasks_path: A folder of lm-eval task files beside lm-eval's own.
        num_fewshot: Examples in the prompt.
        limit: Only the first documents of each task.
        dtype: Of the forward passes; None: the campaign's, or float32.
        device: Where to run.
        trust_remote_code: Let the model and data sets run code of their own.
        allow_pickle: Accept PyTorch pickles where there is no safetensors file.
        allow_unsafe_code: Let tasks run code that the model writes.

    Returns:
        lm-eval's own results, and the values of every item.

    Raises:
        UserError: The model, a task or the campaign is wrong.
    """
    single = import_quickly("evomerge.single")
    names = [tasks] if isinstance(tasks, str) else list(tasks)
    if (campaign is None) == (not names):
        raise UserError("give either tasks or campaign")
    settings: dict[str, Any] = {
        "device": device,
        "trust_remote_code": trust_remote_code,
        "allow_pickle": allow_pickle,
        "allow_unsafe_code": allow_unsafe_code,
    }
    scores: ModelScores
    if campaign is not None:
        scores = single.score_on_campaign(model, Path(campaign), split, dtype=dtype, **settings)
    else:
        scores = single.score_on_tasks(
            model,
            names,
            tasks_path=None if tasks_path is None else Path(tasks_path),
            num_fewshot=num_fewshot,
            limit=limit,
            dtype=dtype or "float32",
            **settings,
        )
    return scores


def _announce(display: Display, result: Result) -> None:
    winners = result.leaderboard.winners
    objective = winners[0].objective("holdout") if winners else None
    display.event(
        "result",
        folder=str(result.folder),
        model=str(result.folder / "best"),
        number=result.best.number,
        name=result.best.name,
        value=objective,
    )
