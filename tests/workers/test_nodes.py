"""A cluster of three nodes on this machine; nodes are killed and join while work is in flight."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

START = """
import json, os, sys, tempfile, time
from pathlib import Path
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
from ray.cluster_utils import Cluster as Nodes
from evomerge.candidate import Merge
from evomerge.candidate.trial import Entry, Job, Outcome
from evomerge.workers import RayPool

class Busy:
    def evaluate(self, job):
        import os, time, ray
        time.sleep(1.0)
        return Outcome(worker=ray.get_runtime_context().get_node_id())

nodes = Nodes(
    initialize_head=True,
    head_node_args={"num_cpus": 1, "include_dashboard": False, "temp_dir": sys.argv[1]},
)
report = {}

def work(pool, numbers, at=None, do=None):
    waiting, found = list(numbers), {}
    sizes = []
    while waiting or len(found) < len(numbers):
        while waiting and pool.free:
            number = waiting.pop(0)
            pool.submit(Job(Entry(f"trial {number}", Merge("busy", ()), number), "search"))
        sizes.append(pool.size)
        job, outcome = pool.next(timeout=120)
        assert job.entry.number not in found
        found[job.entry.number] = outcome
        if len(found) == at:
            do()
    assert sorted(found) == list(numbers)
    assert all(outcome.failure is None for outcome in found.values())
    return sizes, {outcome.worker for outcome in found.values()}

def end():
    print(json.dumps(report))
    nodes.shutdown()
"""


def run(script: str, *arguments: str) -> dict[str, Any]:
    """Run a script of its own, as this process may be in another cluster; return what it reports."""
    import tempfile

    # Ray's sockets need a short path.
    with tempfile.TemporaryDirectory(prefix="evomerge-", dir="/tmp") as folder:
        done = subprocess.run(
            [sys.executable, "-c", START + script, folder, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=420,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def test_a_node_that_leaves_takes_no_work_with_it_and_one_that_joins_is_used() -> None:
    report = run("""
first, second = nodes.add_node(num_cpus=1), nodes.add_node(num_cpus=1)
pool = RayPool(Busy, count="auto", address=nodes.address, retries=0)
sizes, workers = work(pool, range(9))
report["before"] = [max(sizes), len(workers)]
start = time.monotonic()
left = []
def leave():
    nodes.remove_node(first, allow_graceful=False)
    left.append(time.monotonic())
sizes, workers = work(pool, range(16), 4, leave)
report["after"] = [pool.size, pool.free]
report["seconds"] = time.monotonic() - left[0]
def join():
    report["joined"] = nodes.add_node(num_cpus=2).node_id
sizes, workers = work(pool, range(40), 2, join)
report["joined used"] = report["joined"] in workers
report["end"] = [pool.size, pool.free]
pool.close()
end()
""")
    assert report["before"] == [3, 3]
    assert report["after"] == [2, 2]
    assert report["seconds"] < 60
    assert report["joined used"]
    assert report["end"] == [4, 4]


def test_a_fixed_count_is_kept_where_there_is_room() -> None:
    report = run("""
first, second = nodes.add_node(num_cpus=1), nodes.add_node(num_cpus=1)
pool = RayPool(Busy, count=2, address=nodes.address)
_, workers = work(pool, range(4))
gone = first if first.node_id in workers else second
sizes, workers = work(pool, range(12), 2, lambda: nodes.remove_node(gone, allow_graceful=False))
report["size"] = pool.size
report["gone"] = gone.node_id in workers
pool.close()
end()
""")
    assert report == {"size": 2, "gone": report["gone"]}


@pytest.mark.skipif(os.getuid() != 0, reason="hiding a folder from a node takes root")
def test_models_are_sent_to_a_node_that_lacks_them(tmp_path: Path) -> None:
    """One node does not see the folder of the models: something else is mounted there."""
    model = tmp_path / "models" / "base"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "weights").write_bytes(b"0123456789" * 1000)
    allowed = subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "none", str(model.parent)], capture_output=True
    )
    if allowed.returncode:
        pytest.skip("mounting is not allowed here")
    report = run(
        """
import subprocess
from functools import partial
from evomerge.workers.transfer import Transfer, local_names
model = sys.argv[2]
member = (
    "import sys, time; from ray._private.node import Node; from ray._private.parameter import RayParams; "
    "Node(RayParams(gcs_address=sys.argv[1], node_ip_address='127.0.0.1', num_cpus=2, min_worker_port=0, "
    "max_worker_port=0, object_store_memory=150 * 2**20), head=False, shutdown_at_exit=True, "
    "spawn_reaper=True); time.sleep(300)"
)
hide = f'mount -t tmpfs none {os.path.dirname(model)} && exec "$0" -c "$1" {nodes.address}'
hidden = subprocess.Popen(["unshare", "-m", "sh", "-c", hide, sys.executable, member],
    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"TMPDIR": sys.argv[3]})

class Reads:
    def __init__(self, names):
        self.names = names
    def evaluate(self, job):
        import ray, time
        from pathlib import Path
        time.sleep(0.5)
        place = Path(self.names.get(job.entry.name, job.entry.name))
        text = (place / "weights").read_text()
        return Outcome(worker=f"{ray.get_runtime_context().get_node_id()} {len(text)} {place}")

def build(transfer):
    return Reads(local_names(transfer))

deadline = time.monotonic() + 240
transfer = Transfer("transfer-of-a-test", (model,))
pool = RayPool(partial(build, transfer), count="auto", address=nodes.address, transfer=transfer)
found = set()
while time.monotonic() < deadline and len({line.split()[0] for line in found}) < 2:
    for _ in range(pool.free):
        pool.submit(Job(Entry(model, Merge("read", ()), 0), "search"))
    found.add(pool.next(timeout=180)[1].worker)
report["found"] = sorted(found)
report["size"] = pool.size
pool.close()
hidden.terminate()
hidden.wait()
end()
""",
        str(model),
        str(tmp_path),
    )
    places = {line.split()[0]: line.split()[1:] for line in report["found"]}
    assert len(places) == 2
    assert {size for size, _ in places.values()} == {"10000"}
    sent = [place for _, place in places.values() if place != str(model)]
    assert len(sent) == 1
    assert f"evomerge-models-{os.getuid()}" in sent[0]
    assert len(report["found"]) == 2  # both workers of the node read one copy
