from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from evomerge.errors import CampaignError
from evomerge.workers.cluster import Cluster


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
