"""Names in a campaign that mean nothing, found in a fraction of a second: no model or task is opened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from evomerge.config import Campaign, Space
from evomerge.config.faults import at_field, located
from evomerge.config.model_names import parts
from evomerge.errors import (
    CampaignError,
    ModelError,
    ResultsError,
    TaskError,
    nearest,
)
from evomerge.kinds import kind_named
from evomerge.zoo import registry


def check_names(campaign: Campaign, file: Path | None = None) -> None:
    """Check the names of methods, parameters, models and folders, as far as that needs no library.

    What is not sure to be wrong, such as an id of the Hub, is left to the preflight.

    Args:
        campaign: The settings.
        file: Where they were read from; errors then name this file and the line.

    Raises:
        UserError: A name is unknown, or a folder is missing.
    """
    with located(file):
        _check_space(campaign.space)
        if campaign.search.sampler != "auto":
            from evomerge.search.samplers import sampler_class

            sampler_class(campaign)
        for field, model in _models(campaign):
            _check_model(field, model)
        _check_folders(campaign)


def _check_space(space: Space) -> None:
    kind = kind_named(space.kind)
    for key in space.model_fields_set - kind.keys - {"kind"}:
        raise CampaignError(
            f'the kind "{space.kind}" takes no {key}; {nearest(key, kind.keys)}',
            field=f"space.{key}",
        )
    kind.check(space)


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


def _check_folders(campaign: Campaign) -> None:
    tasks, earlier = campaign.tasks_path, campaign.search.warm_start
    if tasks is not None and not Path(tasks).is_dir():
        raise TaskError(
            "no such folder; expected a folder of lm-eval task files",
            file=tasks,
            field="tasks_path",
        )
    if earlier is not None and not Path(earlier).is_dir():
        raise ResultsError(
            "no such folder; expected a results folder of `evomerge search`",
            file=earlier,
            field="search.warm_start",
        )
