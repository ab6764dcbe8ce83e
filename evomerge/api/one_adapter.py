"""A recipe, or a trial of a campaign, as one LoRA adapter of the base."""

from __future__ import annotations

from pathlib import Path

from evomerge.candidate import Candidate, Merge, Recipe, load_all, located
from evomerge.errors import ModelError, RecipeError, UserError
from evomerge.kinds import files
from evomerge.merge.adapter_output import Truncated, save_adapter
from evomerge.result import entry
from evomerge.store import Store


def merge_as_adapter(
    source: Candidate | Recipe | str | Path,
    out: Path,
    *,
    rank: int,
    trial: int | str | None = None,
    device: str = "cpu",
    dtype: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
) -> Truncated:
    """Write a merge as an adapter; arguments and errors as of `evomerge.merge`."""
    code, pickle = trust_remote_code, allow_pickle
    found: object = source
    merges: dict[str, Recipe] = {}
    file = None
    if trial is not None:
        with Store.open(Path(str(source)), write=False) as store:
            found, models = entry(store, str(trial)).candidate, store.campaign.models
        code, pickle = code or models.trust_remote_code, pickle or models.allow_pickle
    elif isinstance(source, str | Path):
        file = Path(source)
        if file.is_dir():
            raise UserError("is a folder; say which trial: trial=N, or trial='best'", file=file)
        found = files.load(file)
        if found is None:
            found, merges = load_all(file)
    if not isinstance(found, Merge | Recipe):
        raise UserError("is no merge; only a merge can be one adapter", file=file or str(source))
    try:
        return save_adapter(
            found,
            out,
            rank=rank,
            device=device,
            dtype=dtype,
            trust_remote_code=code,
            allow_pickle=pickle,
            merges=merges,
        )
    except (ModelError, RecipeError) as error:
        raise (error if file is None else located(error, file)) from error
