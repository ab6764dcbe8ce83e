"""Whether models can be merged: the same architecture, tensors, shapes and vocabulary."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from evomerge.errors import ModelError
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.location import split_adapter

HEADS = ("lm_head.weight", "embed_out.weight", "output.weight")


def check_family(base: Checkpoint, experts: Sequence[Checkpoint]) -> None:
    """Check that the experts are of the base's family; reads headers only.

    Args:
        base: The model that the others are compared with.
        experts: The others.

    Raises:
        ModelError: It names the expert, and the tensor or token that differs; or the base lacks a
            parameter; or two names mean one model.
    """
    check_distinct([base, *experts])
    for expert in experts:
        _check_architecture(base, expert)
        _check_tensors(base, expert)
        _check_vocabulary(base, expert)
    if base.missing:
        more = f" (and {len(base.missing) - 1} more)" if len(base.missing) > 1 else ""
        raise ModelError(
            f"lacks {min(base.missing)}{more}, which transformers would fill with random numbers",
            file=base.name,
        )


def check_distinct(checkpoints: Sequence[Checkpoint]) -> None:
    """Check that no two names mean the same folder, through a link or another way of writing its path.

    Raises:
        ModelError: Two do; it names both.
    """
    places: dict[tuple[Path | None, ...], str] = {}
    for checkpoint in checkpoints:
        _, adapter = split_adapter(checkpoint.name)
        place = (checkpoint.folder.resolve(), Path(adapter).resolve() if adapter else None)
        if place in places:
            raise ModelError(
                f"is the same model as {places[place]}; name a model in one way, and as one expert only",
                file=checkpoint.name,
            )
        places[place] = checkpoint.name


def merged_names(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return the tensors of a model that a merge has to give.

    A model with tied embeddings has no output head of its own. Where the file holds one all the same it
    must equal the embeddings, and is left out: the merged head is the merged embeddings.

    Raises:
        ModelError: The config ties the head to the embeddings, the file holds two different ones.
    """
    text_config = checkpoint.config.get_text_config()
    names = tuple(checkpoint.tensors)
    if not getattr(text_config, "tie_word_embeddings", False):
        return names
    for head in (name for name in names if name in HEADS):
        header = checkpoint.tensors[head]
        twins = [n for n in names if n != head and checkpoint.tensors[n].shape == header.shape]
        stored = checkpoint.tensor(head)
        if not any(torch.equal(stored, checkpoint.tensor(twin)) for twin in twins):
            raise ModelError(
                f"the config says tie_word_embeddings, but {head} differs from the embeddings; set "
                "tie_word_embeddings to false in config.json or remove the tensor",
                file=checkpoint.name,
            )
        names = tuple(name for name in names if name != head)
    return names


def _check_architecture(base: Checkpoint, expert: Checkpoint) -> None:
    if base.config.model_type != expert.config.model_type:
        raise ModelError(
            f"is a {expert.config.model_type} model, the base ({base.name}) a {base.config.model_type}; "
            "only models of one architecture can be merged",
            file=expert.name,
        )


def _check_tensors(base: Checkpoint, expert: Checkpoint) -> None:
    ours, theirs = set(merged_names(base)), set(merged_names(expert))
    for names, verb in ((ours - theirs, "lacks"), (theirs - ours, "has")):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            contrast = "has" if verb == "lacks" else "has not"
            raise ModelError(
                f"{verb} {min(names)}{more}, which the base ({base.name}) {contrast}",
                file=expert.name,
            )
    for name in sorted(ours):
        mine, other = base.tensors[name].shape, expert.tensors[name].shape
        if mine != other:
            unlike_rows = mine[1:] == other[1:] and ("embed" in name or name in HEADS)
            kind = "another vocabulary" if unlike_rows else "another shape"
            raise ModelError(
                f"has {kind}: {name} is {list(other)}, the base's ({base.name}) {list(mine)}",
                file=expert.name,
            )


def _check_vocabulary(base: Checkpoint, expert: Checkpoint) -> None:
    """Rows of one number must mean one token; tokens that only one of the two has may be padding rows."""
    if base.folder == expert.folder:
        return
    ours, theirs = _tokens(base.folder), _tokens(expert.folder)
    for index in sorted(ours.keys() & theirs.keys()):
        if ours[index] != theirs[index]:
            raise ModelError(
                f"has another vocabulary: token {index} is {theirs[index]!r}, the base's ({base.name}) "
                f"{ours[index]!r}",
                file=expert.name,
            )


def _tokens(folder: Path) -> dict[int, str]:
    """Number → token, of the plain vocabulary of a tokenizer.json; empty where there is none."""
    path = folder / "tokenizer.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelError(f"not a tokenizer: {error}", file=path) from None
    added = {int(token["id"]) for token in content.get("added_tokens") or []}
    vocabulary = (content.get("model") or {}).get("vocab") or {}
    if isinstance(vocabulary, Mapping):
        return {int(index): token for token, index in vocabulary.items() if index not in added}
    return {index: entry[0] for index, entry in enumerate(vocabulary) if index not in added}
