"""A merged model as a folder that transformers loads: written aside, synced, renamed."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from evomerge.candidate import Merge, Recipe, dumps
from evomerge.config.destination import open_to_readers, refuse_unwritable
from evomerge.errors import MergeError, ResultsError, UserError
from evomerge.merge.card import default_card
from evomerge.merge.checkpoint import Checkpoint, open_checkpoint
from evomerge.merge.devices import torch_dtype, usable_device
from evomerge.merge.engine import out_dtype, run_plan
from evomerge.merge.family import check_family, check_finite
from evomerge.merge.heads import with_heads
from evomerge.merge.plan import Plan, plan_merge
from evomerge.merge.tokenizer_files import TokenizerFiles
from evomerge.merge.validation import check_recipe
from evomerge.merge.vocabulary import OutputVocabulary

UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "B": 1}
Progress = Callable[[int, int], None]


def save(
    source: Merge | Recipe,
    out: Path | str,
    *,
    device: torch.device | str = "cpu",
    dtype: str | None = None,
    shard_size: str | int = "5GB",
    card: str | None = None,
    replace: bool = False,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    progress: Progress | None = None,
) -> None:
    """Merge and write the result: safetensors, config, tokenizer, `recipe.yaml` and `README.md`.

    Nothing is left behind when it fails: the folder appears, whole, or not at all.

    Args:
        source: What to merge.
        out: The folder; its parents are made.
        device: Where the maths is done.
        dtype: Of the file; None: the recipe's, or the base's own.
        shard_size: Largest file, such as `5GB`, or bytes.
        card: The model card; None: a short one that shows the recipe.
        replace: Replace an existing folder, once the new one is complete.
        trust_remote_code: Let the models run code of their own; it is copied along.
        allow_pickle: Accept PyTorch pickles where there is no safetensors file.
        progress: Called with bytes written and bytes in all, after each tensor.

    Raises:
        RecipeError: The recipe is wrong.
        ModelError: A model is missing, damaged, or of another family, or holds NaN or infinity.
        UserError: There is no such device or dtype here.
        ResultsError: `out` exists, or cannot be made.
        MergeError: The maths has no answer, or the disk does not take the result.
    """
    out = Path(out)
    if out.exists() and not replace:
        raise ResultsError("exists already; name another folder, or move it away", file=out)
    refuse_unwritable(out, ResultsError, advice="name another folder")
    device = usable_device(device)
    if dtype is not None:
        torch_dtype(dtype)
    recipe = source.recipe() if isinstance(source, Merge) else source
    check_recipe(recipe)
    opened = {
        name: open_checkpoint(name, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
        for name in recipe.model_names()
    }
    checkpoints = with_heads(opened)
    base, *experts = checkpoints.values()
    matched = recipe.vocabulary is not None
    check_family(base, experts, matched=matched, trust_remote_code=trust_remote_code)
    plan = plan_merge(source, checkpoints)
    for name, checkpoint in checkpoints.items():
        check_finite(checkpoint, _inputs(plan, name))
    vocabulary = _vocabulary(plan, checkpoints, trust_remote_code)
    tokenizer = TokenizerFiles.plan(
        plan.chat_template, checkpoints, vocabulary, trust_remote_code=trust_remote_code
    )
    if vocabulary is not None:
        vocabulary.configure(plan.config)
        checkpoints = vocabulary.seen(plan, checkpoints)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = _beside(out)
    except OSError as error:
        raise MergeError(f"{out} cannot be written: {error.strerror or error}") from None
    try:
        _write_tensors(plan, checkpoints, aside, device, dtype, _bytes(shard_size), progress)
        _write_config(plan, checkpoints, aside, dtype)
        tokenizer.write(aside)
        (aside / "recipe.yaml").write_text(dumps(recipe), encoding="utf-8")
        text = default_card(recipe, out.name) if card is None else card
        (aside / "README.md").write_text(text, encoding="utf-8")
        open_to_readers(aside)
        _sync(aside)
        _move(aside, out)
    except OSError as error:
        raise MergeError(f"{out} cannot be written: {error.strerror or error}") from None
    except SafetensorError as error:  # what a full disk makes of `save_file`
        raise MergeError(f"{out} cannot be written: {error}") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _inputs(plan: Plan, model: str) -> list[str]:
    """The tensors of a model that a plan reads."""
    names = (
        tensor
        for piece in plan.tensors
        for source, tensor in zip(piece.models, piece.tensors, strict=True)
        if source == model
    )
    return list(dict.fromkeys(names))


def _vocabulary(
    plan: Plan, checkpoints: Mapping[str, Checkpoint], trust_remote_code: bool
) -> OutputVocabulary | None:
    if plan.vocabulary is None:
        return None
    return OutputVocabulary.build(plan.vocabulary, checkpoints, trust_remote_code=trust_remote_code)


def _write_tensors(
    plan: Plan,
    checkpoints: Mapping[str, Checkpoint],
    folder: Path,
    device: torch.device | str,
    dtype: str | None,
    shard_size: int,
    progress: Progress | None,
) -> None:
    sizes = _sizes(plan, checkpoints, dtype)
    shards = _shards(sizes, shard_size)
    total, written, number = sum(sizes.values()), 0, 0
    pending: dict[str, torch.Tensor] = {}
    for name, tensor in run_plan(plan, checkpoints, device=device, dtype=dtype):
        pending[name] = tensor.to("cpu").contiguous()
        written += sizes[name]
        if set(pending) == set(shards[number]):
            save_file(pending, folder / _shard_name(number, len(shards)), metadata={"format": "pt"})
            pending, number = {}, number + 1
        if progress is not None:
            progress(written, total)
    if len(shards) > 1:
        weight_map = {
            name: _shard_name(index, len(shards))
            for index, names in enumerate(shards)
            for name in names
        }
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        (folder / "model.safetensors.index.json").write_text(
            json.dumps(index, indent=2) + "\n", encoding="utf-8"
        )


def _sizes(plan: Plan, checkpoints: Mapping[str, Checkpoint], dtype: str | None) -> dict[str, int]:
    """Output tensor → bytes, in the order of writing."""
    sizes = {}
    for piece in plan.tensors:
        shape = checkpoints[piece.models[0]].tensors[piece.tensors[0]].shape
        itemsize = out_dtype(piece, plan, checkpoints, dtype).itemsize
        sizes[piece.name] = torch.Size(shape).numel() * itemsize
    return sizes


def _shards(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Fill files in order, none above `limit` unless one tensor alone is."""
    shards: list[list[str]] = []
    filled = 0
    for name, size in sizes.items():
        if not shards or filled + size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _shard_name(number: int, count: int) -> str:
    if count == 1:
        return "model.safetensors"
    return f"model-{number + 1:05d}-of-{count:05d}.safetensors"


def _write_config(
    plan: Plan,
    checkpoints: Mapping[str, Checkpoint],
    folder: Path,
    dtype: str | None,
) -> None:
    floating = [
        found
        for found in (out_dtype(piece, plan, checkpoints, dtype) for piece in plan.tensors)
        if found.is_floating_point
    ]
    plan.config.dtype = max(set(floating), key=floating.count)
    plan.config.save_pretrained(folder)


def _bytes(size: str | int) -> int:
    if isinstance(size, int):
        found = size
    else:
        text = size.strip().upper()
        unit = next((unit for unit in UNITS if text.endswith(unit)), "")
        number = text.removesuffix(unit).strip()
        try:
            found = int(float(number) * UNITS.get(unit, 1))
        except ValueError:
            found = 0
    if found <= 0:
        raise UserError(
            f'shard size "{size}" is no size; expected one such as 5GB', field="shard_size"
        )
    return found


def _beside(out: Path) -> Path:
    """Make an empty hidden folder beside `out`, open to whom the umask says (`mkdtemp`'s are private)."""
    folder = out.parent / f".{out.name}.{secrets.token_hex(8)}"
    folder.mkdir()
    return folder


def _sync(folder: Path) -> None:
    for path in (*folder.iterdir(), folder):
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
