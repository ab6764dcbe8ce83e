"""The model card of a merged model: what it is made of, what it scores, how sure that is, how to load it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from evomerge.candidate import NEEDS_COEFFICIENTS, Candidate
from evomerge.candidate.recipe import NEEDS_STATISTICS
from evomerge.candidate.trial import SPLITS
from evomerge.errors import ResultsError
from evomerge.kinds import kind_of
from evomerge.merge.methods import mergekit_lacks
from evomerge.merge.user_methods import remark
from evomerge.report.formats.markdown import cell, fenced, table
from evomerge.report.grid import plain
from evomerge.report.layout import leaderboard_report
from evomerge.report.leaderboard import Leaderboard
from evomerge.report.metadata import fixed_parameters, metadata
from evomerge.report.parents import common_licence, loading_class, read_card
from evomerge.report.rows import Row

if TYPE_CHECKING:
    from evomerge.store import Store


def model_card(store: Store, leaderboard: Leaderboard, row: Row | None = None) -> str:
    """Write the README.md of a saved merge.

    Args:
        store: The campaign's results.
        leaderboard: Its leaderboard.
        row: The model saved, one of the leaderboard's; default the (first) winner.

    Returns:
        Markdown under a YAML front matter, with the leaderboard on the last split that the model was scored
        on. Everything that comes from outside is escaped.

    Raises:
        ResultsError: No `row` is given, and no winner is chosen yet.
    """
    if row is None:
        if not leaderboard.winners:
            raise ResultsError("the campaign has no winner yet, and so nothing to describe")
        row = leaderboard.winners[0]
    campaign = leaderboard.campaign
    split = next((one for one in reversed(SPLITS) if one in row.splits), leaderboard.latest_split())
    shown = leaderboard_report(leaderboard, split)
    parents = {"base": read_card(store.campaign.models.base)}
    for expert in store.campaign.models.experts:
        parents[f"expert {expert.name}"] = read_card(expert.model)
    template = _environment().get_template("card.md.jinja")
    return template.render(
        front_matter=metadata(campaign, row, split, list(parents.values())),
        licences={part: card.stated for part, card in parents.items()},
        licence=common_licence(list(parents.values())),
        campaign=campaign,
        row=row,
        origin=row.name if row.trial is None else f"trial {row.trial}",
        method=row.recipe.label(),
        search=store.campaign.search,
        base=shown_model(campaign.base),
        experts={name: shown_model(model) for name, model in campaign.experts.items()},
        leaderboard="\n".join(map(table, shown.grids if row.kind == "winner" else shown.grids[:1])),
        loading_class=loading_class(store.campaign.models.base),
        own_form=kind_of(row.recipe).own_form,
        split=split,
        needed=_needed(row.recipe),
        recipe=fenced(row.recipe.file(), "yaml"),
        versions=campaign.versions,
    )


def _needed(candidate: Candidate) -> str:
    """Return what building the model again needs beside the recipe."""
    rows = "" if candidate.coefficients is None else NEEDS_COEFFICIENTS
    read = "" if candidate.statistics is None else NEEDS_STATISTICS
    lacking = mergekit_lacks(candidate.methods, fixed_parameters(candidate))
    said = (rows, read, remark(candidate.methods), lacking, candidate.remark())
    return "\n\n".join(filter(None, said))


def shown_model(model: str) -> str:
    """Name a model without the folders of this machine: a Hub id as it is, a folder by its last part."""
    return Path(model).name if model.startswith(("/", "~", ".")) else model


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("evomerge.report"),
        autoescape=False,  # Markdown, not HTML: every text goes through `cell`
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = cell
    environment.filters["plain"] = plain
    return environment
