"""A model over several devices: runs of whole layers, of about as many bytes on each.

A model's parts follow each other as its data does: embeddings, layers, final norm, output head. A device gets
those whose middle lies in its equal share of all numbers, so none has more than that share and one part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class ModelPart:
    """A module that is never cut: a layer, or what stands outside the layers.

    Attributes:
        name: In the model.
        numbers: Of its parameters, without those that an earlier part has too.
        shared_with: The earlier part that has one of its parameters (a tied head); None: there is none.
    """

    name: str
    numbers: int
    shared_with: str | None = None


def parts_of(model: nn.Module) -> tuple[ModelPart, ...]:
    """Return a model's parts in their order; it may be on the device `meta`."""
    owner: dict[int, str] = {}
    found = []
    for name, module in _whole_modules(model, set(getattr(model, "_no_split_modules", None) or ())):
        own = {id(each): each.numel() for each in module.parameters()}
        shared = [owner[key] for key in own if key in owner]
        found.append(
            ModelPart(
                name,
                sum(count for key, count in own.items() if key not in owner),
                shared[0] if shared else None,
            )
        )
        owner |= {key: name for key in own if key not in owner}
    return tuple(found)


def spread(parts: tuple[ModelPart, ...], count: int) -> dict[str, int]:
    """Return on which of `count` equal devices each part lies, in ascending order but for shared parameters.

    Args:
        parts: Of the model.
        count: Of devices.
    """
    total = sum(part.numbers for part in parts)
    found: dict[str, int] = {}
    before = 0
    for part in parts:
        middle = before + part.numbers / 2
        before += part.numbers
        if part.shared_with is not None:
            found[part.name] = found[part.shared_with]
        else:
            found[part.name] = int(count * middle / total) if part.numbers else 0
    return found


def device_of(name: str, places: Mapping[str, int]) -> int:
    """Return where a tensor of a part lies; a name of no part, on the first device."""
    while name not in places and "." in name:
        name = name.rpartition(".")[0]
    return places.get(name, 0)


def _whole_modules(
    module: nn.Module, whole: set[str], name: str = ""
) -> Iterator[tuple[str, nn.Module]]:
    for own, child in module.named_children():
        path = f"{name}.{own}" if name else own
        is_whole = (
            isinstance(module, nn.ModuleList)
            or type(child).__name__ in whole
            or next(child.children(), None) is None
            or next(child.parameters(recurse=False), None) is not None
        )
        if is_whole:
            yield path, child
        else:
            yield from _whole_modules(child, whole, path)
