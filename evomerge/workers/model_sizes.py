"""Sizes of open models, whole and by device, from their headers and configurations alone."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace

from evomerge.candidate.size import FEED_FORWARD
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.methods.algebra import is_linear
from evomerge.merge.names import model_names
from evomerge.merge.spread import device_of, spread

NUMBER_BYTES: Mapping[str, float] = {"nf4": 0.5 + 4 / 64, "fp4": 0.5 + 4 / 64, "int8": 1.0}
"""Of a quantised number; in 4 bits with its part of a block's scale."""


@dataclass(frozen=True)
class Sizes:
    """Models in bytes and numbers.

    Attributes:
        models: Bytes of each model, base first, as it is read: stored, or computed by an adapter; what an
            adapter leaves as it is counts once.
        computed: Of these all together, those that are not views of a file.
        files: Bytes of all files, each counted once.
        numbers: Of one model.
        deltas: Of all task vectors, where they are not 0 altogether.
        tensors: Of each of its tensors.
        weights: Bytes of the live model, or of all that are live at once.
        matrices: Shapes of the linear layers' matrices.
    """

    models: tuple[int, ...]
    computed: int
    files: int
    numbers: int
    deltas: int
    tensors: tuple[int, ...]
    weights: int
    matrices: frozenset[tuple[int, ...]] = frozenset()


def sizes_of(
    checkpoints: Mapping[str, Checkpoint],
    itemsize: int,
    live: int = 1,
    feed_forwards: int = 0,
    quantise: str | None = None,
) -> Sizes:
    """Return the sizes of open models, the base first; only headers are read.

    Args:
        checkpoints: By name.
        itemsize: Bytes of a number of the live model.
        live: How many models of the base's size are live at once.
        feed_forwards: How many times the feed-forward blocks of one, besides.
        quantise: What the linear layers of the live model are quantised to (`LiveModel`).
    """
    base, *experts = checkpoints.values()
    numbers = [header.numel for header in base.tensors.values()]
    blocks = sum(header.numel for name, header in base.tensors.items() if FEED_FORWARD in name)
    models, computed, deltas = [], 0, 0
    files: dict[Hashable, int] = {}
    seen: set[Hashable] = set()
    for one in (base, *experts):
        own = 0
        for name, header in one.tensors.items():
            key = one.key(name)
            if key in seen:
                continue
            seen.add(key)
            own += header.nbytes
            deltas += header.numel if one is not base else 0
            if one.is_mapped(name):
                files[key] = header.nbytes
            else:
                computed += header.nbytes
        models.append(own)
    linear = {name: one for name, one in base.tensors.items() if is_linear(name, one.shape)}
    less = 0.0 if quantise is None else itemsize - NUMBER_BYTES[quantise]
    saved = round(less * sum(header.numel for header in linear.values()))
    return Sizes(
        models=tuple(models),
        computed=computed,
        files=sum(files.values()),
        numbers=sum(numbers),
        deltas=deltas,
        tensors=tuple(numbers),
        weights=itemsize * (live * sum(numbers) + feed_forwards * blocks) - saved,
        matrices=frozenset(tuple(header.shape) for header in linear.values()),
    )


def sizes_by_device(
    checkpoints: Mapping[str, Checkpoint],
    count: int,
    itemsize: int,
    live: int = 1,
    *,
    quantise: str | None = None,
    trust_remote_code: bool = False,
) -> tuple[Sizes, ...]:
    """Return the sizes of what lies on each of `count` devices that a live model is spread over.

    Arguments are those of `sizes_of`; nothing for a single device, or a model that is not transformers'.
    """
    base = next(iter(checkpoints.values()))
    names = None
    if count > 1:
        names = model_names(base.config, trust_remote_code=trust_remote_code)
    if names is None:
        return ()
    places = spread(names.parts, count)
    owner = {name: device_of(names.parameter(name) or name, places) for name in base.tensors}

    def part(one: Checkpoint, device: int) -> Checkpoint:
        own = {name: each for name, each in one.tensors.items() if owner.get(name, 0) == device}
        return replace(one, tensors=own)

    return tuple(
        sizes_of(
            {name: part(one, device) for name, one in checkpoints.items()},
            itemsize,
            live,
            quantise=quantise,
        )
        for device in range(count)
    )
