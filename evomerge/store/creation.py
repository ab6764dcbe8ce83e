"""The database of a new campaign: filled aside, then put in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from evomerge.config import Campaign
from evomerge.store import folder as folders
from evomerge.store.database import create_database, open_engine, transaction
from evomerge.store.encoding import encode_json
from evomerge.store.tables import META, SCHEMA_VERSION


def value_names(campaign: Campaign) -> list[str]:
    """Return what each objective value of a trial is, as dashboards show it."""
    tasks = [f"{goal.task}/{goal.metric}" for goal in campaign.objectives]
    if campaign.mode == "pareto":
        return [*tasks, *(cost.cost for cost in campaign.costs)]
    return tasks if len(tasks) == 1 and not campaign.costs else ["mean"]


def create_study(
    folder: Path, campaign: Campaign, facts: Mapping[str, Any], directions: Sequence[str]
) -> None:
    """Make `study.db`; a folder that has it is a whole campaign.

    Args:
        folder: An existing results folder, locked.
        campaign: The settings.
        facts: JSON values that the results depend on.
        directions: `maximize` or `minimize`, one an objective value.

    Raises:
        EvomergeError: The disk is full or not writable.
    """
    aside = folder / folders.UNFINISHED
    names = value_names(campaign)
    study_id = create_database(aside, campaign.name, directions, names)
    meta = {
        "schema": str(SCHEMA_VERSION),
        "study_id": str(study_id),
        "trials": encode_json(campaign.search.trials),
        "planned_trials": str(campaign.planned_trials),
        "directions": encode_json(list(directions)),
        "facts": encode_json(facts),
        "campaign": campaign.to_yaml(),
    }
    engine = open_engine(aside, write=True)
    try:
        with transaction(engine, aside) as connection:
            rows = [{"key": key, "value": value} for key, value in meta.items()]
            connection.execute(insert(META), rows)
    finally:
        engine.dispose()
    try:
        folders.rename_whole(aside, folder / folders.DATABASE)
    except OSError as error:
        raise folders.unwritable(folder / folders.DATABASE, error) from None
