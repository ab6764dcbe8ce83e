"""An adapter on a model: its tensors' shapes and values, and what becomes of a tied output head.

A tied head and the embeddings are one weight. PEFT keeps it one where the adapter holds mere copies of it or
trained rows of it; what it trains under one of the two names (LoRA factors, `modules_to_save`) acts under
that name only, so the adapted model has two weights. So is it here, unless both are trained to the same
values. (PEFT's own merge adds LoRA factors to the one weight that the unmerged model has, and then computes
something else than the adapter that was trained; here the merged model is the adapted one.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from transformers import PretrainedConfig

from evomerge.errors import ModelError
from evomerge.merge.adapter import Adapter, Change, same
from evomerge.merge.vocabulary_tensors import USUAL_HEAD, VocabularyTensors, is_head, is_tied

Read = Callable[[str], torch.Tensor]
CONV1D = ("gpt2", "openai-gpt", "imagegpt")
"""Model types whose layers store weights as `[in, out]`."""


@dataclass(frozen=True)
class Adapted:
    """A model with an adapter.

    Attributes:
        shapes: Of all its tensors; a head of its own among them where the adapter gave it one.
        origin: Tensor → the model's own that it is made from.
        touched: Tensors that the adapter changes; they are float32.
        unties: The model's head was tied, and is not any more.
        resizes: The adapter brings embeddings or a head of its own, which may have rows for new tokens.
        read: A tensor's value.
    """

    shapes: Mapping[str, tuple[int, ...]]
    origin: Mapping[str, str]
    touched: frozenset[str]
    unties: bool
    resizes: bool
    read: Read


def adapt(
    adapter: Adapter, config: PretrainedConfig, shapes: Mapping[str, tuple[int, ...]], read: Read
) -> Adapted:
    """Put an adapter on a model.

    Args:
        adapter: What to put.
        config: Of the model.
        shapes: Of its tensors.
        read: A tensor's value.

    Raises:
        ModelError: The adapter changes a tensor that the model has not, or has in another shape.
    """
    known = VocabularyTensors.of(config, shapes)
    changes = dict(adapter.changes)
    origin = {name: name for name in shapes}
    unties = False
    if is_tied(config) and known.embedding is not None:
        head = next((name for name in (*changes, *known.heads) if _is_weight(name)), USUAL_HEAD)
        both = changes.pop(known.embedding, Change()), changes.pop(head, Change())
        embedding, own = _settled(adapter, both, partial(read, known.embedding))
        for name, change in ((known.embedding, embedding), (head, own)):
            if change is not None and change != Change():
                changes[name] = change
        unties = own is not None
        if changes.keys() & {known.embedding, head}:  # a copy in the file would contradict them
            origin.pop(head, None)
        if unties:
            origin[head] = known.embedding
    vocabulary = {*known.names, *(name for name in origin if is_head(name))}
    found = {name: shapes[origin[name]] for name in origin}
    turned = getattr(config, "model_type", None) in CONV1D
    for name, change in sorted(changes.items()):
        if name not in found:
            raise ModelError(
                f"adapts {name}, which the model has not; was it trained on another model?",
                file=adapter.folder,
            )
        change.check(name, found[name], adapter.folder, resizable=name in vocabulary)
        changes[name] = change.stored_as(transposed=turned)

    def value(name: str) -> torch.Tensor:
        stored = read(origin[name])
        return changes[name].applied(stored) if name in changes else stored

    return Adapted(
        shapes={
            name: changes[name].shape(shape) if name in changes else shape
            for name, shape in found.items()
        },
        origin=origin,
        touched=frozenset(changes),
        unties=unties,
        resizes=bool(vocabulary & changes.keys()),
        read=value,
    )


def _is_weight(name: str) -> bool:
    return is_head(name) and name.endswith(".weight")


def _settled(
    adapter: Adapter, both: tuple[Change, Change], stored: Callable[[], torch.Tensor]
) -> tuple[Change, Change | None]:
    """Return what becomes of the embeddings, and of the head; None: it stays tied to them."""
    embedding, head = _with_copies(*both, stored)
    if head.rows is None and not head.trained:
        head = replace(head, rows=embedding.rows)
    if embedding.equals(head) or (adapter.keeps_tie and not head.is_own):
        return embedding, None
    return embedding, head


def _with_copies(
    embedding: Change, head: Change, stored: Callable[[], torch.Tensor]
) -> tuple[Change, Change]:
    """Give both names the copy that the adapter holds under one of them, and leave out what is no change."""
    copies = [one.weight for one in (head, embedding) if one.weight is not None and not one.trained]
    filled = [
        replace(one, weight=copies[0]) if copies and one.weight is None else one
        for one in (embedding, head)
    ]
    base = copies[0] if copies else None
    if any(one.trained for one in filled) or base is not None:
        original = stored()
        filled = [
            replace(one, weight=None, trained=False)
            if one.weight is not None and same(one.weight, original)
            else one
            for one in filled
        ]
    return filled[0], filled[1]
