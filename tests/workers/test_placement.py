"""Workers on a machine, and on each of its GPUs."""

from __future__ import annotations

import pytest

from evomerge.errors import CampaignError
from evomerge.workers.placement import Sharing, capacity, sharing_of, workers_that_fit

MACHINE = {"CPU": 8.0, "GPU": 2.0, "memory": 1e9}
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


@pytest.mark.parametrize(
    ("cpus", "gpus", "count"),
    [(1, 0, 8), (3, 0, 2), (16, 0, 1), (1, 1, 2), (1, 0.25, 8), (8, 1, 1)],
)
def test_auto_is_what_fits(cpus: float, gpus: float, count: int) -> None:
    assert workers_that_fit("auto", cpus, gpus, [MACHINE], may_share_cores=True) == count


def test_more_workers_than_cores_are_allowed_on_one_machine_only() -> None:
    assert workers_that_fit(9, 1, 0, [MACHINE], may_share_cores=True) == 9
    with pytest.raises(CampaignError, match=r"workers\.cpus: 9 workers of 1 cpus need 9, found 8"):
        workers_that_fit(9, 1, 0, [MACHINE], may_share_cores=False)


def test_a_worker_does_not_span_two_nodes() -> None:
    nodes = [{"CPU": 3.0}, {"CPU": 3.0}, {"memory": 1e9}]
    assert workers_that_fit("auto", 2, 0, nodes, may_share_cores=False) == 2
    with pytest.raises(CampaignError, match=r"3 workers of 2 cpus need 6, found 6"):
        workers_that_fit(3, 2, 0, nodes, may_share_cores=False)


def test_fractions_add_up() -> None:
    assert capacity(0.1, 0, [{"CPU": 0.3}]) == 3
    assert capacity(1, 0.3, [{"CPU": 8.0, "GPU": 0.9}]) == 3


@pytest.mark.parametrize("count", [1, "auto"])
def test_a_worker_does_not_get_more_gpus_than_the_largest_node_has(count: int | str) -> None:
    nodes = [{"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0}]
    line = r"workers\.gpus: a worker of 4 gpus needs a node with 4, the largest has 2; lower workers\.gpus"
    with pytest.raises(CampaignError, match=line):
        workers_that_fit(count, 1, 4, nodes, may_share_cores=False)  # type: ignore[arg-type]
    assert workers_that_fit("auto", 1, 2, [NODE, *nodes], may_share_cores=False) == 4 + 1


@pytest.mark.parametrize("count", [3, "auto"])
def test_gpus_that_are_not_there_are_an_error(count: int | str) -> None:
    resources = MACHINE if count == 3 else {"CPU": 8.0}
    with pytest.raises(CampaignError, match=r"workers\.gpus: . workers of 1 gpus need"):
        workers_that_fit(count, 1, 1, [resources], may_share_cores=True)  # type: ignore[arg-type]
