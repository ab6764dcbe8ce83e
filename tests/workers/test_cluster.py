from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from evomerge.errors import CampaignError
from evomerge.workers.cluster import Cluster, capacity, workers_that_fit

MACHINE = {"CPU": 8.0, "GPU": 2.0, "memory": 1e9}


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


@pytest.mark.parametrize("count", [3, "auto"])
def test_gpus_that_are_not_there_are_an_error(count: int | str) -> None:
    resources = MACHINE if count == 3 else {"CPU": 8.0}
    with pytest.raises(CampaignError, match=r"workers\.gpus: . workers of 1 gpus need"):
        workers_that_fit(count, 1, 1, [resources], may_share_cores=True)  # type: ignore[arg-type]


def test_a_cluster_that_is_not_there(ray_cluster: Cluster) -> None:
    """In a process of its own, as this one is in a cluster already."""
    script = (
        "from evomerge.workers.cluster import Cluster\n"
        "from evomerge.errors import EvomergeError\n"
        "try:\n    Cluster(count=1, cpus=1, gpus=0, address='127.0.0.1:1')\n"
        "except EvomergeError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout == (
        "--address: no Ray cluster answers at 127.0.0.1:1 (Connection refused); start one with "
        "`ray start --head`, or leave --address out\n"
    )


def test_one_that_is_running_is_used_and_left_running(ray_cluster: Cluster) -> None:
    import ray

    cluster = Cluster(count=1, cpus=1, gpus=0, address=None)
    assert cluster.count == 1
    cluster.close()
    cluster.close()
    assert ray.is_initialized()
    with pytest.raises(CampaignError):
        Cluster(count=1, cpus=1, gpus=4, address=None)
    assert ray.is_initialized()


def test_nothing_listens_beyond_this_machine(ray_cluster: Cluster) -> None:
    import psutil

    ours = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = [
        connection.laddr.ip
        for process in ours
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}


def test_the_users_environment_is_left_alone(ray_cluster: Cluster) -> None:
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in os.environ
    assert "RAY_USAGE_STATS_ENABLED" not in os.environ


def test_sigterm_is_still_the_callers_to_handle() -> None:
    """Ray would print a stack trace and die."""
    script = (
        "import os, signal, sys, time\n"
        "from evomerge.workers.cluster import Cluster\n"
        "def leave(*_): sys.exit(7)\n"
        "signal.signal(signal.SIGTERM, leave)\n"
        "cluster = Cluster(count=1, cpus=1, gpus=0, address=None)\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(5)\n"
        "finally:\n"
        "    cluster.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 7
    assert done.stderr == ""


@pytest.mark.slow
def test_a_ray_of_our_own_is_quiet_at_normal_priority_and_leaves_no_token(tmp_path: Path) -> None:
    script = (
        "import os\n"
        "from evomerge.workers.cluster import Cluster\n"
        "cluster = Cluster(count=1, cpus=1, gpus=0, address=None)\n"
        "import ray\n"
        "print(ray.get(ray.remote(lambda: os.nice(0)).remote()))\n"
        "cluster.close()\n"
    )
    env = {**os.environ, "HOME": str(tmp_path)}
    for name in ("RAY_worker_niceness", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        env.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
    assert list(tmp_path.iterdir()) == []
