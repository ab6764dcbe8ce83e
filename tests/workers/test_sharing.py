"""Workers on a machine, and on each of its GPUs."""

from __future__ import annotations

import pytest

from evomerge.workers.sharing import Sharing, sharing_of

NODE = {"CPU": 96.0, "GPU": 8.0}


@pytest.mark.parametrize(
    ("count", "cpus", "gpus", "found"),
    [
        ("auto", 8, 1, Sharing(node=8, device=1)),  # not a GPU's memory divided by eight
        ("auto", 4, 0.5, Sharing(node=16, device=2)),
        ("auto", 1, 0.3, Sharing(node=26, device=3)),
        (1, 8, 0.5, Sharing(node=1, device=1)),  # half is asked for, and nobody takes the rest
        (3, 8, 0.5, Sharing(node=3, device=2)),
        (2, 8, 2, Sharing(node=2, device=1)),
        ("auto", 2, 0, Sharing(node=48, device=48)),
        (5, 1, 0, Sharing(node=5, device=5)),
        (10_000, 1, 1, Sharing(node=8, device=1)),
    ],
)
def test_workers_share_the_device_that_they_are_on(
    count: int | str, cpus: float, gpus: float, found: Sharing
) -> None:
    assert sharing_of(count, cpus, gpus, [NODE]) == found  # type: ignore[arg-type]


def test_of_several_nodes_the_fullest_counts() -> None:
    nodes = [{"CPU": 4.0, "GPU": 1.0}, {"CPU": 16.0, "GPU": 4.0}]
    assert sharing_of("auto", 1, 1, nodes) == Sharing(node=4, device=1)
    assert sharing_of("auto", 1, 1, []) == Sharing()
