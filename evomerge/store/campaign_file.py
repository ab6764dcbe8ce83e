"""`campaign.yaml` of a results folder: the campaign as it was run, and what it depended on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evomerge import yaml_file
from evomerge.campaign import Campaign


def with_facts(campaign: Campaign, facts: Mapping[str, Any]) -> str:
    """Return the file's text: the campaign with every default, and the facts as comments below it."""
    lines = yaml_file.dump({"facts": facts}).splitlines()
    comments = "".join(f"# {line}\n" for line in lines)
    return f"{campaign.to_yaml()}\n# Recorded when the campaign began:\n{comments}"


def with_trials(campaign: Campaign, trials: int) -> Campaign:
    """Return the campaign with another budget of trials."""
    search = campaign.search.model_copy(update={"trials": trials})
    return campaign.model_copy(update={"search": search})


def difference(run: Campaign, now: Campaign) -> str | None:
    """Return the dotted path of the first field in which two campaigns differ; None if in none."""
    return _difference(run.model_dump(mode="json"), now.model_dump(mode="json"), ())


def _difference(old: Any, new: Any, place: tuple[str, ...]) -> str | None:  # noqa: ANN401 - JSON
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return None if old == new else ".".join(place)
    found = (
        _difference(old.get(key), new.get(key), (*place, str(key)))
        for key in dict.fromkeys([*old, *new])
    )
    return next((path for path in found if path is not None), None)
