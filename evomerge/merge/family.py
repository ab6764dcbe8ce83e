"""Whether models can be merged: the same architecture, tensors, shapes and vocabulary, and only numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from evomerge.errors import ModelError, UnlikeTokensError
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.heads import is_head, is_head_weight, is_tied
from evomerge.merge.location import split_adapter
from evomerge.merge.tokenizer import WAY_OUT, check_tokens

if TYPE_CHECKING:
    from evomerge.merge.layout import Layout

    LayoutOf = Callable[[Checkpoint], Layout]


def check_family(
    base: Checkpoint,
    experts: Sequence[Checkpoint],
    *,
    matched: bool = False,
    tokens: bool = True,
    trust_remote_code: bool = False,
    layout_of: LayoutOf | None = None,
) -> None:
    """Check that the experts are of the base's family; reads headers and tokenizers only.

    Args:
        base: The model that the others are compared with.
        experts: The others.
        matched: Rows are matched by token (`OutputVocabulary`): vocabularies may differ.
        tokens: Unless they are matched, compare the tokenizers (`check_tokens`).
        trust_remote_code: Let tokenizers run code of their own.
        layout_of: Tells a model's layers (`Layout.of`); the experts may have more or fewer of them than the
            base, each with the tensors and shapes of one of the base's. None: they have as many.

    Raises:
        ModelError: It names the expert, and the tensor or token that differs; or the base lacks a
            parameter; or two names mean one model.
    """
    check_distinct([base, *experts])
    for expert in experts:
        _check_architecture(base, expert)
        _check_tensors(base, expert, _expected(base, expert, layout_of), matched)
    if tokens and not matched:
        check_tokens([base, *experts], trust_remote_code=trust_remote_code)
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


def check_finite(checkpoint: Checkpoint, names: Iterable[str] | None = None) -> None:
    """Check that a model's tensors hold neither NaN nor infinity; each is read once, one at a time.

    Args:
        checkpoint: The model.
        names: Of the tensors; None: all.

    Raises:
        ModelError: It names the model and the first such tensor, and says how many values are bad.
    """
    for name in checkpoint.tensors if names is None else names:
        header = checkpoint.tensors[name]
        if not header.dtype.is_floating_point:
            continue
        tensor = checkpoint.tensor(name)
        if is_finite(tensor):
            continue
        bad = ~torch.isfinite(tensor)
        nans = int(torch.isnan(tensor).sum())
        kind = "NaN" if nans == int(bad.sum()) else "NaN or infinity" if nans else "infinity"
        raise ModelError(
            f"{name} holds {kind} in {int(bad.sum())} of {tensor.numel()} values (the first at "
            f"{bad.nonzero()[0].tolist()}); no merge with this model can be used: copy, download or train "
            "it again, or leave it out",
            file=checkpoint.name,
        )


def is_finite(tensor: torch.Tensor) -> bool:
    """Tell whether floating-point numbers hold neither NaN nor infinity.

    Both go into a sum, and through minimum and maximum, which are asked where a sum overflows: 40 and 20
    times as fast as `isfinite`.
    """
    if math.isfinite(tensor.sum()):
        return True
    return bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all())


def merged_names(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return the tensors of a model that a merge has to give.

    A model with tied embeddings has no output head of its own. Where the file holds one all the same it
    must equal the embeddings, and is left out: the merged head is the merged embeddings.

    Raises:
        ModelError: The config ties the head to the embeddings, the file holds two different ones.
    """
    names = tuple(checkpoint.tensors)
    if not is_tied(checkpoint.config):
        return names
    for head in filter(is_head_weight, names):
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


def layer_shapes(checkpoint: Checkpoint, layout: Layout, layer: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a layer's tensors by their names without prefix and number."""
    suffixes = layout.layers[layer]
    return {one: checkpoint.tensors[layout.name(layer, one)].shape for one in suffixes}


def _check_architecture(base: Checkpoint, expert: Checkpoint) -> None:
    if base.config.model_type != expert.config.model_type:
        raise ModelError(
            f"is a {expert.config.model_type} model, the base ({base.name}) a {base.config.model_type}; "
            "only models of one architecture can be merged",
            file=expert.name,
        )


def _expected(
    base: Checkpoint, expert: Checkpoint, layout_of: LayoutOf | None
) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of an expert's tensors: the base's, with as many layers as the expert has.

    A layer that the base lacks is to be as the one of the base's that is most like it.
    """
    expected = {name: base.tensors[name].shape for name in merged_names(base)}
    if layout_of is None:
        return expected
    ours, theirs = layout_of(base), layout_of(expert)
    known = [layer_shapes(base, ours, layer) for layer in range(ours.num_layers)]
    for layer, shapes in enumerate(known[theirs.num_layers :], theirs.num_layers):
        for suffix in shapes:
            del expected[ours.name(layer, suffix)]
    for layer in range(ours.num_layers, theirs.num_layers):
        found = layer_shapes(expert, theirs, layer).items()
        like = min(known, key=lambda one: len(one.items() ^ found))
        expected |= {ours.name(layer, suffix): shape for suffix, shape in like.items()}
    return expected


def _check_tensors(
    base: Checkpoint, expert: Checkpoint, expected: Mapping[str, tuple[int, ...]], matched: bool
) -> None:
    ours, theirs = set(expected), set(merged_names(expert))
    for names, verb in ((ours - theirs, "lacks"), (theirs - ours, "has")):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            contrast = "lacks" if verb == "has" else "has"
            if verb == "lacks" and min(names) not in base.tensors:
                contrast = "has in its layers"
            raise ModelError(
                f"{verb} {min(names)}{more}, which the base ({base.name}) {contrast}",
                file=expert.name,
            )
    for name in sorted(ours):
        mine, other = expected[name], expert.tensors[name].shape
        if mine != other:
            unlike_rows = mine[1:] == other[1:] and ("embed" in name or is_head(name))
            if unlike_rows and matched:
                continue
            kind = "another vocabulary" if unlike_rows else "another shape"
            advice = f"; {WAY_OUT}" if unlike_rows else ""
            raise (UnlikeTokensError if unlike_rows else ModelError)(
                f"has {kind}: {name} is {list(other)}, the base's ({base.name}) {list(mine)}{advice}",
                file=expert.name,
            )
