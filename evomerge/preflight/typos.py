"""Names in a campaign that mean nothing, found within a second: no model or task is opened."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from evomerge.config import Campaign
from evomerge.config.faults import at_field, located
from evomerge.config.model_names import parts
from evomerge.errors import (
    CampaignError,
    ModelError,
    ResultsError,
    TaskError,
    nearest,
)
from evomerge.kinds import check_space
from evomerge.loggers import LOGGERS, check_logger
from evomerge.merge.user_methods import MethodFile, use
from evomerge.zoo import registry

SECONDS_TO_ANSWER = 3.0
"""Of the Hub."""

_NAMES = re.compile(rb"^\s*[\"']?(?:task|group|tag)[\"']?\s*:\s*[\"']?([\w.:+-]+)", re.MULTILINE)


def check_names(campaign: Campaign, file: Path | None = None, results: Path | None = None) -> None:
    """Check names of methods, parameters, models, loggers, folders and tasks; no heavy library is needed.

    What is not sure to be wrong, such as an id where the Hub is out of reach, is left to the preflight.

    Args:
        campaign: The settings.
        file: Where they were read from; errors then name this file and the line.
        results: The results folder of a campaign that began, which has what it names.

    Raises:
        UserError: A name is unknown, or a folder is missing.
    """
    with located(file):
        methods = MethodFile.of(campaign, results)
        with at_field("methods", CampaignError):
            use(methods)
        check_space(campaign.space)
        if campaign.search.sampler != "auto":
            from evomerge.search.samplers import sampler_class

            sampler_class(campaign)
        for place, logger in enumerate(campaign.loggers):
            field = f"loggers.{place}"
            check_logger(logger.name, logger.options, LOGGERS, field, folder=logger.folder)
        for field, model in _models(campaign):
            _check_model(field, model)
        _check_folders(campaign)
        _check_tasks(campaign)


def _models(campaign: Campaign) -> Iterator[tuple[str, str]]:
    yield "models.base", campaign.models.base
    for place, expert in enumerate(campaign.models.experts):
        yield f"models.experts.{place}", expert.model


def _check_model(field: str, model: str) -> None:
    for part in parts(model):
        if part.startswith(registry.PREFIX):
            with at_field(field):
                registry.resolve(part)
        elif Path(part).is_absolute() and not Path(part).exists():
            raise ModelError(
                "no such folder; expected a model folder or a Hub id", file=part, field=field
            )
        elif not Path(part).exists() and part.count("/") == 1:
            _check_hub_id(field, part)


@lru_cache(maxsize=64)  # the preflight checks again
def _check_hub_id(field: str, model: str) -> None:
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    name, _, revision = model.partition("@")
    try:
        if not isinstance(try_to_load_from_cache(name, "config.json"), str):
            HfApi().model_info(name, revision=revision or None, timeout=SECONDS_TO_ANSWER)
    except (HFValidationError, RepositoryNotFoundError):
        raise ModelError(
            "no such folder, and no such repository on the Hub, or it is private: then log in with "
            "`hf auth login`",
            file=model,
            field=field,
        ) from None
    except Exception:  # noqa: BLE001 - of any client: the Hub is out of reach, or the model is known
        pass


def _check_folders(campaign: Campaign) -> None:
    tasks, earlier = campaign.tasks_path, campaign.search.warm_start
    if tasks is not None and not Path(tasks).is_dir():
        raise TaskError(
            "no such folder; expected a folder of lm-eval task files",
            file=tasks,
            field="tasks_path",
        )
    for place, goal in enumerate(campaign.objectives):
        if goal.prompts is not None and not Path(goal.prompts).is_file():
            raise TaskError(
                "no such file; expected JSON lines with prompts",
                file=goal.prompts,
                field=f"objectives.{place}.prompts",
            )
    if earlier is not None and not Path(earlier).is_dir():
        raise ResultsError(
            "no such folder; expected a results folder of `evomerge search`",
            file=earlier,
            field="search.warm_start",
        )


def _check_tasks(campaign: Campaign) -> None:
    """Refuse a task whose name stands in no task file; lm-eval itself needs ten seconds to tell."""
    own = [] if campaign.tasks_path is None else [Path(campaign.tasks_path)]
    spec = find_spec("lm_eval")
    shipped = [Path(at) / "tasks" for at in (spec and spec.submodule_search_locations) or ()]
    for place, goal in enumerate(campaign.objectives):
        task = goal.task
        if goal.prompts is not None:
            continue
        if any(sign in task for sign in "*?[") or any(
            _may_define(_task_files(folder), task) for folder in [*own, *shipped]
        ):
            continue
        files = [file for folder in [*own, *shipped] for file in _task_files(folder)]
        known = {name.decode() for file in files for name in _NAMES.findall(file.read_bytes())}
        where = f" (lm-eval's own tasks, and {campaign.tasks_path})" if own else ""
        close = nearest(task, known)
        hint = close if close.startswith("did") else f"{len(known)} are known"
        message = f'unknown task "{task}"{where}; {hint}'
        raise TaskError(message, field=f"objectives.{place}.task")


def _task_files(folder: Path) -> list[Path]:
    """Return task files and what they include, which may be called `_default_yaml`."""
    return [
        Path(parent, name)
        for parent, _, names in os.walk(folder)
        for name in names
        if Path(name).suffix in (".yaml", ".yml", "")
    ]


def _may_define(files: Iterable[Path], task: str) -> bool:
    """Return whether a file is called like a task, or holds its name."""
    word = re.compile(rb"(?<![\w.-])" + re.escape(task.encode()) + rb"(?![\w.-])")
    files = list(files)
    return any(file.stem == task for file in files) or any(
        word.search(file.read_bytes()) for file in files
    )
