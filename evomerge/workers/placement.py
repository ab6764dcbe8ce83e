"""How many workers fit on the nodes, and how many of them share a node and each of its GPUs.

A node is what Ray says of it: its numbers of `CPU` and `GPU`. A worker does not span two nodes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from evomerge.errors import CampaignError

Node = Mapping[str, float]


@dataclass(frozen=True)
class Sharing:
    """How many equal workers there are.

    Attributes:
        node: On one machine.
        device: On one of its GPUs; as many as on the machine where they compute on the CPU.
    """

    node: int = 1
    device: int = 1


def capacity(cpus: float, gpus: float, nodes: Iterable[Node]) -> int:
    """Return how many workers of so many cores and GPUs fit."""
    shares = [(key, share) for key, share in (("CPU", cpus), ("GPU", gpus)) if share > 0]
    return sum(
        min((_floor(node.get(key, 0.0) / share) for key, share in shares), default=1)
        for node in nodes
    )


def workers_that_fit(
    count: int | Literal["auto"],
    cpus: float,
    gpus: float,
    nodes: Sequence[Node],
    *,
    may_share_cores: bool,
) -> int:
    """Return the number of workers; `auto`: as many as fit, at least one.

    Args:
        count: Workers asked for.
        cpus: Cores of each.
        gpus: GPUs of each.
        nodes: Where they may be.
        may_share_cores: On one machine more workers than cores are allowed.

    Raises:
        CampaignError: Too few GPUs, or too few cores.
    """
    wanted = max(1, capacity(cpus, gpus, nodes)) if count == "auto" else count
    for name, key, share in (("cpus", "CPU", cpus), ("gpus", "GPU", gpus)):
        if name == "cpus" and may_share_cores:
            continue
        found = [node.get(key, 0.0) for node in nodes]
        largest = max(found, default=0.0)
        if share > largest > 0:
            raise CampaignError(
                f"a worker of {share:g} {name} needs a node with {share:g}, the largest has "
                f"{largest:g}; lower workers.{name}",
                field=f"workers.{name}",
            )
        if share > 0 and sum(_floor(of_node / share) for of_node in found) < wanted:
            raise CampaignError(
                f"{wanted} workers of {share:g} {name} need {wanted * share:g}, found "
                f"{sum(found):g}; lower workers.count or workers.{name}",
                field=f"workers.{name}",
            )
    return wanted


def sharing_of(
    count: int | Literal["auto"], cpus: float, gpus: float, nodes: Iterable[Node]
) -> Sharing:
    """Return how many of the workers share the fullest node, and one GPU of it: two have half a GPU each."""
    fit = max((capacity(cpus, gpus, [node]) for node in nodes), default=1)
    node = max(1, fit if count == "auto" else min(count, fit))
    if not gpus:
        return Sharing(node, node)
    return Sharing(node, min(node, max(1, _floor(1 / gpus))))


def _floor(number: float) -> int:
    return math.floor(number + 1e-9)  # 0.3 / 0.1 is three
