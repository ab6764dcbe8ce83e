"""How many workers share a machine and each of its GPUs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from evomerge.workers.cluster import capacity


@dataclass(frozen=True)
class Sharing:
    """How many equal workers there are.

    Attributes:
        node: On one machine.
        device: On one of its GPUs; as many as on the machine where they compute on the CPU.
    """

    node: int = 1
    device: int = 1


def sharing_of(
    count: int | Literal["auto"], cpus: float, gpus: float, nodes: Iterable[Mapping[str, float]]
) -> Sharing:
    """Return how many workers share the fullest of some nodes, and one GPU of it.

    Args:
        count: Workers in all; `auto`: as many as fit.
        cpus: Cores of each.
        gpus: GPUs of each, fractions too: of half a GPU there are two workers on one.
        nodes: Ray's `CPU` and `GPU` of each node.
    """
    fit = max((capacity(cpus, gpus, [node]) for node in nodes), default=1)
    node = max(1, fit if count == "auto" else min(count, fit))
    if not gpus:
        return Sharing(node, node)
    return Sharing(node, min(node, max(1, math.floor(1 / gpus + 1e-9))))
