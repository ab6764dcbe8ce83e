"""A candidate, a recipe, or a trial of a campaign, as one model in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evomerge.candidate import Candidate, MoeRecipe, Recipe, load_all, located
from evomerge.combine.mixture import save_mixture
from evomerge.errors import ModelError, RecipeError, UserError
from evomerge.kinds import files, kind_of
from evomerge.merge.saving import save
from evomerge.result import materialise


def merge_as_model(
    source: Candidate | Recipe | str | Path,
    out: Path,
    *,
    trial: int | str | None = None,
    **settings: Any,  # noqa: ANN401
) -> int | None:
    """Write a model; arguments, result and errors as of `evomerge.merge`, settings as of `saving.save`."""
    if trial is not None:
        return materialise(Path(str(source)), str(trial), out, **settings)
    if isinstance(source, Recipe):
        save(source, out, **settings)
        return None
    if not isinstance(source, str | Path):
        kind_of(source).save(source, out, **settings)
        return None
    if Path(source).is_dir():
        raise UserError("is a folder; say which trial: trial=N, or trial='best'", file=source)
    own = files.load(Path(source))
    if own is not None:
        kind_of(own).save(own, out, **settings)
        return None
    loaded, merges = load_all(Path(source))
    try:
        if isinstance(loaded, MoeRecipe):
            save_mixture(loaded, out, merges=merges, **settings)
        else:
            save(loaded, out, merges=merges, **settings)
    except (ModelError, RecipeError) as error:
        raise located(error, Path(source)) from error
    return None
