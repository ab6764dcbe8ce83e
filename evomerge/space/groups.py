"""Groups of layers that share their parameters."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import CampaignError

LayerGroups = tuple[tuple[int, int], ...]
Numbers = NDArray[np.float64]


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


def mean_overlap(old: LayerGroups, new: LayerGroups) -> Numbers:
    """Return the share of each old group in each new one, by layers; shape [new, old], rows sum to 1."""
    layers = np.array(
        [
            [max(0, min(stop, o_stop) - max(start, o_start)) for o_start, o_stop in old]
            for start, stop in new
        ],
        dtype=np.float64,
    )
    shares: Numbers = layers / layers.sum(axis=1, keepdims=True)
    return shares


def regrouped(shares: Numbers, values: Numbers) -> Numbers:
    """Return the mean of values by shares; exactly their value, to the last bit, where all are the same.

    Args:
        shares: Shape [new, old], rows sum to 1.
        values: Shape [old, components, experts].

    Returns:
        Shape [new, components, experts].
    """
    largest = values[shares.argmax(axis=1)]
    apart = values[None] - largest[:, None]
    found: Numbers = largest + np.einsum("no,noce->nce", shares, apart)
    return found


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
