"""A LoRA adapter (a PEFT folder) on a model: what PEFT computes with it, in float32, rounded nowhere.

A tied head and the embeddings are one weight. PEFT keeps it one where the adapter holds mere copies of it or
trained rows of it; what it trains under one of the two names (LoRA factors, `modules_to_save`) acts under
that name only, so the adapted model has two weights. So is it here, unless both are trained to the same
values. (PEFT's own merge adds LoRA factors to the one weight that the unmerged model has, and then computes
something else than the adapter that was trained; here the merged model is the adapted one.)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from huggingface_hub import try_to_load_from_cache

from evomerge.errors import ModelError
from evomerge.merge.heads import (
    USUAL_HEAD,
    is_head,
    is_head_weight,
    is_tied,
    resized_config,
    untied_config,
)
from evomerge.merge.location import has_tokenizer
from evomerge.merge.methods.low_rank import Factors

if TYPE_CHECKING:
    from evomerge.merge.checkpoint import Checkpoint

CONV1D = ("gpt2", "openai-gpt", "imagegpt")
"""Model types whose layers store weights as `[in, out]`."""


@dataclass(frozen=True)
class Pair:
    """The two factors of one tensor's update, `scale · B A`.

    Attributes:
        a: `[rank, in]`; of an embedding `[rank, tokens]`.
        b: `[out, rank]`; of an embedding `[hidden, rank]`.
        scale: alpha / rank, or alpha / sqrt(rank) with rslora.
        embedding: Of an embedding, whose weight is stored `[in, out]`.
    """

    a: torch.Tensor
    b: torch.Tensor
    scale: float
    embedding: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Of the weight that the pair is added to, unless it is transposed."""
        return self.b.shape[0], self.a.shape[1]

    def factors(self, shape: tuple[int, ...], conv1d: bool) -> Factors:
        """Return the update as it is added to the weight that is stored.

        Args:
            shape: Of the weight, which tells whether it is transposed unless it is square.
            conv1d: Square ones are stored `[in, out]`.
        """
        square = self.shape[0] == self.shape[1]
        turned = self.embedding or (conv1d if square else self.shape != shape)
        left, right = (self.a.T, self.b.T) if turned else (self.b, self.a)
        return Factors(left, right, self.scale)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Tell whether the update has the shape of the weight."""
        return self.shape[::-1] == shape or (not self.embedding and self.shape == shape)

    def equals(self, other: Pair) -> bool:
        """Tell whether two pairs are the same update of an embedding and of its tied head."""
        if self.scale != other.scale:
            return False
        same = torch.equal(self.a, other.a) and torch.equal(self.b, other.b)
        return same or (torch.equal(self.a, other.b.T) and torch.equal(self.b, other.a.T))


@dataclass(frozen=True)
class Change:
    """What an adapter does to one tensor: another weight, some rows of it replaced, plus an update.

    Attributes:
        weight: Takes the place of the stored one; None: the stored one.
        trained: `weight` was trained in full (`modules_to_save`, biases); otherwise it is a copy of what the
            adapter was trained on.
        pair: Low-rank update.
        indices: Rows of an embedding that were trained in full (`trainable_token_indices`).
        rows: What they are, `[len(indices), hidden]`.
    """

    weight: torch.Tensor | None = None
    trained: bool = False
    pair: Pair | None = None
    indices: tuple[int, ...] = ()
    rows: torch.Tensor | None = None

    @property
    def is_none(self) -> bool:
        """Whether nothing is changed."""
        return self.weight is None and self.pair is None and self.rows is None

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the changed tensor; more rows than before after new tokens."""
        return stored if self.weight is None else tuple(self.weight.shape)

    def applied(self, stored: torch.Tensor, conv1d: bool) -> torch.Tensor:
        """Return the changed tensor, in float32."""
        weight = (stored if self.weight is None else self.weight).float()
        if self.rows is not None:
            weight = weight.index_copy(0, torch.tensor(self.indices), self.rows.to(weight))
        if self.pair is not None:
            weight = weight + self.pair.factors(tuple(weight.shape), conv1d).dense()
        return weight

    def equals(self, other: Change) -> bool:
        """Tell whether two changes make the same of one weight, under its two names."""
        pairs = self.pair, other.pair
        same_pair = pairs[0].equals(pairs[1]) if pairs[0] and pairs[1] else pairs[0] is pairs[1]
        return (
            same_pair
            and self.indices == other.indices
            and _same(self.weight, other.weight)
            and _same(self.rows, other.rows)
        )

    def check(self, name: str, shape: tuple[int, ...], folder: Path, resizable: bool) -> None:
        """Check that the change fits a tensor, which may have more rows where `resizable`."""
        found = self.shape(shape)
        unlike = []
        if found != shape and not (resizable and found[1:] == shape[1:]):
            unlike.append((found, shape))
        if self.pair is not None and not self.pair.fits(found):
            unlike.append((self.pair.shape, found))
        if self.rows is not None and self.rows.shape[1:] != found[1:]:
            unlike.append((tuple(self.rows.shape), found))
        for theirs, ours in unlike:
            raise ModelError(
                f"adapts {name} of shape {list(theirs)}, the model's is {list(ours)}", file=folder
            )
        if self.indices and max(self.indices) >= found[0]:
            raise ModelError(
                f"trains row {max(self.indices)} of {name}, which has {found[0]} rows", file=folder
            )


@dataclass(frozen=True)
class Adapter:
    """What an adapter does to a model's tensors.

    Attributes:
        folder: Where it was read from.
        changes: Tensor → what becomes of it.
        keeps_tie: A tied head was trained as one with its embeddings (`ensure_weight_tying`).
        conv1d: Layers are stored `[in, out]` (`fan_in_fan_out`). PEFT corrects the flag layer by layer and
            saves that of the last one: it counts only where the shape leaves it open.
        trained_on: Its base, as it was named (`base_model_name_or_path`).
    """

    folder: Path
    changes: Mapping[str, Change]
    keeps_tie: bool = False
    conv1d: bool = False
    trained_on: str | None = None

    @property
    def count(self) -> int:
        """How many weights it holds."""
        tensors = [
            tensor
            for one in self.changes.values()
            for tensor in (one.weight, one.rows, *((one.pair.a, one.pair.b) if one.pair else ()))
        ]
        return sum(tensor.numel() for tensor in tensors if tensor is not None)


def with_adapter(model: Checkpoint, adapter: Adapter) -> Checkpoint:
    """Return a model with an adapter on it; the tensors that it changes are float32.

    Raises:
        ModelError: The adapter was trained on another architecture, or changes a tensor that the model does
            not have, or has in another shape.
    """
    kind = None if adapter.trained_on is None else _architecture(adapter.trained_on)
    if kind not in (None, model.config.model_type):
        raise ModelError(
            f"was trained on {adapter.trained_on}, a {kind} model; {model.name} is a "
            f"{model.config.model_type} model",
            file=adapter.folder,
        )
    known = model.vocabulary_tensors
    changes = dict(adapter.changes)
    origin = {name: name for name in model.tensors}
    config = model.config
    if is_tied(config) and known.embedding is not None:
        head = next((name for name in (*changes, *known.heads) if is_head_weight(name)), USUAL_HEAD)
        both = changes.pop(known.embedding, Change()), changes.pop(head, Change())
        embedding, own = _settled(adapter, *both, partial(model.tensor, known.embedding))
        for name, change in ((known.embedding, embedding), (head, own)):
            if change is not None and not change.is_none:
                changes[name] = change
        if changes.keys() & {known.embedding, head}:  # a copy in the file would contradict them
            origin.pop(head, None)
        if own is not None:
            origin[head] = known.embedding
            config = untied_config(config)
    vocabulary = {*known.names, *filter(is_head, origin)}
    headers = {name: model.tensors[origin[name]] for name in sorted(origin)}
    for name, change in sorted(changes.items()):
        if name not in headers:
            raise ModelError(
                f"adapts {name}, which the model does not have; was it trained on another model?",
                file=adapter.folder,
            )
        shape = headers[name].shape
        change.check(name, shape, adapter.folder, name in vocabulary)
        headers[name] = replace(headers[name], shape=change.shape(shape), dtype=torch.float32)
    if known.embedding is not None:
        config = resized_config(config, headers[known.embedding].shape[0])
    conv1d = adapter.conv1d or getattr(config, "model_type", None) in CONV1D

    def stored(name: str) -> torch.Tensor:
        return model.tensor(origin[name])

    def read(name: str) -> torch.Tensor:
        return changes[name].applied(stored(name), conv1d) if name in changes else stored(name)

    updates = {
        name: change.pair.factors(headers[name].shape, conv1d)
        for name, change in changes.items()
        if change.pair is not None and change.weight is None and change.rows is None
    }
    has_tokens = bool(vocabulary & changes.keys()) and has_tokenizer(adapter.folder)
    return replace(
        model,
        config=config,
        tensors=headers,
        tokens_from=adapter.folder if has_tokens else None,
        adapted=frozenset(changes),
        updates=updates,
        _read=read,
        _origin=stored,
    )


def _architecture(model: str) -> str | None:
    """Return the architecture of a model; None: it is neither a folder nor in the Hub's cache here."""
    try:
        folder = Path(model)
        path = folder / "config.json" if folder.is_dir() else _cached(model)
        found = None if path is None else json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # also what is not a Hub id
        return None
    return found.get("model_type") if isinstance(found, dict) else None


def _cached(model: str) -> Path | None:
    found = try_to_load_from_cache(model, "config.json")
    return Path(found) if isinstance(found, str) else None


def _settled(
    adapter: Adapter, embedding: Change, head: Change, stored: Callable[[], torch.Tensor]
) -> tuple[Change, Change | None]:
    """Return what becomes of the embeddings, and of the head; None: it stays tied to them."""
    embedding, head = _with_copies(embedding, head, stored)
    if head.rows is None and not head.trained:
        head = replace(head, indices=embedding.indices, rows=embedding.rows)
    own = head.trained or head.pair is not None  # a copy was not trained, and rows go to both
    if embedding.equals(head) or (adapter.keeps_tie and not own):
        return embedding, None
    return embedding, head


def _with_copies(
    embedding: Change, head: Change, stored: Callable[[], torch.Tensor]
) -> tuple[Change, Change]:
    """Give both names the copy that the adapter holds under one of them, without no-ops."""
    copies = [one.weight for one in (head, embedding) if one.weight is not None and not one.trained]
    if copies:
        embedding, head = (
            replace(one, weight=copies[0]) if one.weight is None else one
            for one in (embedding, head)
        )
    if not copies and not embedding.trained and not head.trained:
        return embedding, head
    original = stored()
    embedding, head = (
        replace(one, weight=None, trained=False) if _same(one.weight, original) else one
        for one in (embedding, head)
    )
    return embedding, head


def _same(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    """Tell whether two tensors hold the same numbers, whatever the dtype."""
    if one is None or other is None:
        return one is other
    return one.shape == other.shape and torch.equal(one.float(), other.float())
