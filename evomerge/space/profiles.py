"""Smooth curves over depth: a truncated cosine basis instead of one value a layer group.

The value at depth z in [0, 1] is Σ_j c_j cos(π j z), put back into the range where it leaves it. A group
stands at the middle of its layers; with one group a layer this is the inverse of a discrete cosine
transform (DCT-II), whose basis is orthogonal.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evomerge.space.groups import LayerGroups

Numbers = NDArray[np.float64]


def basis(groups: LayerGroups, order: int) -> Numbers:
    """Return cos(π j z) of each group's depth z and each j below `order`, shape [groups, order]."""
    num_layers = groups[-1][1]
    depths = [(start + stop) / (2 * num_layers) for start, stop in groups]
    return np.cos(np.pi * np.outer(depths, np.arange(order)))


def coefficient_range(low: float, high: float, j: int) -> tuple[float, float]:
    """Return the range of c_j for values in [low, high].

    c_0 is the mean and has the range itself; the others have ± (high - low) / (2 j): as fast as the
    coefficients of a curve with a step fall, and half the range for the slowest wave.
    """
    if j == 0:
        return low, high
    reach = (high - low) / (2 * j)
    return -reach, reach


def fitted(values: Numbers, groups: LayerGroups, order: int) -> Numbers:
    """Return the coefficients that come closest to given values, each layer counting alike.

    Args:
        values: Shape [groups, ...].
        groups: Their layers.
        order: Number of coefficients, at most that of groups.

    Returns:
        Shape [order, ...].
    """
    share = np.sqrt([stop - start for start, stop in groups])
    flat = values.reshape(len(groups), -1)
    found, *_ = np.linalg.lstsq(basis(groups, order) * share[:, None], flat * share[:, None])
    return np.asarray(found, dtype=np.float64).reshape(order, *values.shape[1:])
