"""A merged model as a folder that transformers loads: written aside, synced, renamed."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import SafetensorError

from evomerge.candidate import Merge, Recipe
from evomerge.candidate import save as save_recipe
from evomerge.config.destination import open_to_readers, refuse_unwritable
from evomerge.errors import MergeError, ResultsError
from evomerge.merge.card import default_card
from evomerge.merge.devices import torch_dtype, usable_device
from evomerge.merge.engine import MergeRun
from evomerge.merge.family import check_finite
from evomerge.merge.members import common_vocabulary, merge_runs, merged_checkpoint, seen_beside
from evomerge.merge.models import OpenModels, open_models
from evomerge.merge.plan import TensorPlan, plan_merge
from evomerge.merge.shards import SHARD_BYTES, write_tensors
from evomerge.merge.statistics import copy_statistics
from evomerge.merge.tokenizer_files import TokenizerFiles
from evomerge.merge.user_methods import copy_beside
from evomerge.merge.validation import check_recipe
from evomerge.progress import Display, NoDisplay, counted


def save(
    source: Merge | Recipe,
    out: Path | str,
    *,
    device: torch.device | str = "cpu",
    dtype: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    display: Display | None = None,
    card: str | None = None,
    replace: bool = False,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    merges: Mapping[str, Recipe] = MappingProxyType({}),
) -> None:
    """Merge and write the result: weights, config, tokenizer, `README.md`; `recipe.yaml`, its coefficients.

    Nothing is left behind when it fails: the folder appears, whole, or not at all.

    Args:
        source: What to merge.
        out: The folder; its parents are made.
        device: Where the maths is done.
        dtype: Of the file; None: the recipe's, or the base's own.
        shard_bytes: Largest file, unless one tensor is larger.
        display: Shows how many tensors are merged; None: nothing does.
        card: The model card; None: a short one that shows the recipe.
        replace: Replace an existing folder, once the new one is complete.
        trust_remote_code: Let the models run code of their own; it is copied along.
        allow_pickle: Accept PyTorch pickles where there is no safetensors file.
        merges: Name → merge that `source` names as one of its models.

    Raises:
        RecipeError: The recipe is wrong.
        ModelError: A model is missing, damaged, or of another family, or holds NaN or infinity.
        UserError: The device or dtype does not exist here.
        ResultsError: `out` exists, or cannot be made.
        MergeError: The maths has no answer, or the disk does not take the result.
    """
    out = Path(out)
    refuse_taken(out, replace=replace)
    device = usable_device(device)
    if dtype is not None:
        torch_dtype(dtype)
    models, run = open_run(
        source,
        merges,
        device=device,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle,
    )
    plan = run.plan
    tokenizer = TokenizerFiles.plan(plan.chat_template, models)
    if models.vocabulary is not None and plan.models[0] not in merges:  # theirs is configured
        models.vocabulary.configure(plan.config, plan.models[0])
    recipe = source.recipe() if isinstance(source, Merge) else source
    merged = run.in_turn(lambda piece: check_inputs([piece], models))
    shown = counted(merged, display or NoDisplay(), "merge", len(plan.tensors))
    with finished_folder(out) as aside:
        write_tensors(
            shown,
            {piece.name: run.header(piece) for piece in plan.tensors},
            aside,
            shard_bytes,
            indexed=any(one.coefficients or one.statistics for one in (recipe, *merges.values())),
        )
        plan.config.dtype = commonest(map(run.out_dtype, plan.tensors))
        plan.config.save_pretrained(aside)
        tokenizer.write(aside)
        save_recipe(recipe, aside / "recipe.yaml", merges)
        copy_beside((one.method for one in (recipe, *merges.values())), aside)
        copy_statistics(recipe, aside, merges)
        text = default_card(recipe, out.name, merges) if card is None else card
        (aside / "README.md").write_text(text, encoding="utf-8")


def open_run(
    source: Merge | Recipe,
    merges: Mapping[str, Recipe],
    *,
    device: torch.device,
    dtype: str | None,
    trust_remote_code: bool,
    allow_pickle: bool,
    base: str | None = None,
) -> tuple[OpenModels, MergeRun]:
    """Open the models of a merge, plan it, and check what the merges that it is made of read.

    Args:
        source: What to merge.
        merges: As of `save`, as are the others.
        device: Where the maths is done.
        dtype: Of the result.
        trust_remote_code: Let the models run code of their own.
        allow_pickle: Accept PyTorch pickles.
        base: Is opened first, whether the merge names it or not.

    Raises:
        RecipeError: The recipe is wrong.
        ModelError: As of `save`.
    """
    recipe = source.recipe() if isinstance(source, Merge) else source
    check_recipe(recipe)
    vocabulary = recipe.vocabulary if not merges else common_vocabulary(recipe, merges)
    recipes = [recipe, *merges.values()]
    if merges and vocabulary is not None:
        recipes = [*merges.values(), recipe]  # whose base the vocabulary's is
    named = [name for one in recipes for name in one.model_names()]
    models = open_models(
        [name for name in ([] if base is None else [base]) + named if name not in merges],
        vocabulary,
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle,
        depths=isinstance(source, Recipe) and any(one.slices for one in recipes),
    )
    runs = merge_runs(merges, models, device)
    made = {name: merged_checkpoint(name, run, models) for name, run in runs.items()}
    plan = plan_merge(source, {**models.checkpoints, **made})
    check_inputs([piece for run in runs.values() for piece in run.plan.tensors], models)
    seen = seen_beside(plan, models, merges, made) if made else models.seen(plan)
    return models, MergeRun(plan, seen, device=device, dtype=dtype)


def check_inputs(pieces: Iterable[TensorPlan], models: OpenModels) -> None:
    """Check that tensors are made of finite numbers only; of each model a tensor is read once.

    Raises:
        ModelError: As of `check_finite`.
    """
    read: dict[str, dict[str, None]] = {model: {} for model in models.checkpoints}
    for piece in pieces:
        for model, tensor in zip(piece.models, piece.tensors, strict=True):
            read.get(model, {})[tensor] = None  # what a merge gives was checked before
    for model, names in read.items():
        check_finite(models.checkpoints[model], names)


def refuse_taken(out: Path, *, replace: bool) -> None:
    """Refuse a folder that exists, unless it may be replaced, or that cannot be made. Raises ResultsError."""
    if out.exists() and not replace:
        raise ResultsError("exists already; name another folder, or move it away", file=out)
    refuse_unwritable(out, ResultsError, advice="name another folder")


@contextmanager
def finished_folder(out: Path) -> Iterator[Path]:
    """Give an empty folder to write into; behind it, it takes the place of `out`, or is gone if that failed.

    Raises:
        MergeError: The disk does not take it.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = _beside(out)
    except OSError as error:
        raise MergeError(f"{out} cannot be written: {error.strerror or error}") from None
    try:
        yield aside
        open_to_readers(aside)
        _sync(aside)
        _move(aside, out)
    except OSError as error:
        raise MergeError(f"{out} cannot be written: {error.strerror or error}") from None
    except SafetensorError as error:  # what a full disk makes of `save_file`
        raise MergeError(f"{out} cannot be written: {error}") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def commonest(dtypes: Iterable[torch.dtype]) -> torch.dtype:
    """Return the dtype of floating-point numbers that most of a model's tensors have."""
    floating = [dtype for dtype in dtypes if dtype.is_floating_point]
    return max(set(floating), key=floating.count)


def _beside(out: Path) -> Path:
    """Make an empty hidden folder beside `out`, open to whom the umask says (`mkdtemp`'s are private)."""
    folder = out.parent / f".{out.name}.{secrets.token_hex(8)}"
    folder.mkdir()
    return folder


def _sync(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _move(aside: Path, out: Path) -> None:
    """Put the finished folder in its place; an old one stays whole until then."""
    if out.exists():
        old = _beside(out)
        out.rename(old / "old")
        aside.rename(out)
        shutil.rmtree(old)
    else:
        aside.rename(out)
    descriptor = os.open(out.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
