"""`campaign.yaml` of a results folder: the campaign as it was run, and what it depended on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evomerge import yaml_file
from evomerge.config import Campaign
from evomerge.errors import ResultsError
from evomerge.store.folder import CAMPAIGN, write_whole


def with_facts(campaign: Campaign, facts: Mapping[str, Any]) -> str:
    """Return the file's text: the campaign with every default, and the facts as comments below it."""
    lines = yaml_file.dump({"facts": facts}).splitlines()
    comments = "".join(f"# {line}\n" for line in lines)
    return f"{campaign.to_yaml()}\n# Recorded when the campaign began:\n{comments}"


def with_trials(campaign: Campaign, trials: int | None) -> Campaign:
    """Return the campaign with another budget of trials."""
    search = campaign.search.model_copy(update={"trials": trials})
    return campaign.model_copy(update={"search": search})


def difference(run: Campaign, now: Campaign) -> str | None:
    """Return the dotted path of the first field in which two campaigns differ; None if in none."""
    return _difference(run.model_dump(mode="json"), now.model_dump(mode="json"), ())


def as_run(folder: Path, text: str, facts: Mapping[str, Any], *, write: bool) -> Campaign:
    """Return the campaign that a results folder's database holds.

    Args:
        folder: The results folder.
        text: What the database says.
        facts: Recorded with it.
        write: Refuse a file in the folder that says something else; write it again where it is gone.

    Raises:
        ResultsError: The file was changed.
    """
    file = folder / CAMPAIGN
    run = Campaign.from_document(yaml_file.parse(text, path=file))
    if write and not file.exists():
        write_whole(file, with_facts(run, facts))
    elif write and (changed := difference(run, Campaign.load(file))) is not None:
        raise ResultsError(
            "was changed since the campaign began; undo the change (evomerge resume takes "
            "--trials and --workers), or start a new campaign",
            file=file,
            field=changed,
        )
    return run


def _difference(old: Any, new: Any, place: tuple[str, ...]) -> str | None:  # noqa: ANN401 - JSON
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return None if old == new else ".".join(place)
    found = (
        _difference(old.get(key), new.get(key), (*place, str(key)))
        for key in dict.fromkeys([*old, *new])
    )
    return next((path for path in found if path is not None), None)
