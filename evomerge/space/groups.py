"""Groups of layers that share their parameters."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from evomerge.errors import CampaignError

LayerGroups = tuple[tuple[int, int], ...]


def layer_groups(
    layers: int | Literal["each"] | tuple[tuple[int, int], ...], num_layers: int
) -> LayerGroups:
    """Return contiguous [start, stop) groups that cover all layers.

    Args:
        layers: A number of groups, as even as they can be, the first ones longer; `each`: one a layer;
            or the pairs themselves.
        num_layers: Layers of the models.

    Raises:
        CampaignError: More groups than layers, or pairs that leave a gap, overlap, or miss layers.
    """
    if layers == "each":
        layers = num_layers
    if isinstance(layers, int):
        if layers > num_layers:
            raise CampaignError(
                f"found {layers} groups, but the models have {num_layers} layers; expected 1 to "
                f"{num_layers}, or each",
                field="space.layers",
            )
        size, longer = divmod(num_layers, layers)
        edges = [group * size + min(group, longer) for group in range(layers + 1)]
        return tuple(pairwise(edges))
    _check_pairs(layers, num_layers)
    return tuple(layers)


def _check_pairs(pairs: tuple[tuple[int, int], ...], num_layers: int) -> None:
    expected = 0
    for start, stop in pairs:
        if start != expected or stop <= start:
            raise CampaignError(
                f"found the group [{start}, {stop}), expected one that starts at layer {expected} and "
                "is not empty: groups are contiguous and in order",
                field="space.layers",
            )
        expected = stop
    if expected != num_layers:
        raise CampaignError(
            f"the groups end at layer {expected}, but the models have {num_layers} layers; the last "
            f"stop must be {num_layers}",
            field="space.layers",
        )
