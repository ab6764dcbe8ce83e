"""The plan as lines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evomerge.merge.methods import METHODS
from evomerge.preflight.campaign_plan import Plan
from evomerge.preflight.description import describe
from evomerge.workers.memory_plan import Machine, plan_memory
from evomerge.workers.model_sizes import Sizes
from evomerge.workers.placement import Sharing

GB = 10**9
SEVEN = 7_241_732_096
HOST = Machine(host=137 * GB, host_free=128 * GB)


def memory(experts=6, sharing=None, device=85 * GB, method="ties"):
    models = (2 * SEVEN,) * (1 + experts)
    sizes = Sizes(
        models, 0, sum(models), SEVEN, experts * SEVEN, (32_000 * 4096, 14_336 * 4096), 2 * SEVEN
    )
    machine = replace(HOST, device=device)
    return plan_memory(sizes, machine, sharing or Sharing(), [METHODS[method]])


@pytest.fixture
def plan():
    return Plan(
        dimensions=10,
        trials=60,
        items_per_trial=256,
        steps=80,
        evaluations=100,
        workers=1,
        memory=memory(),
        memory_bytes=1,
        disk_bytes=15 * GB,
        free_disk_bytes=90 * GB,
        seconds=7300.0,
        ended_by_hours=False,
    )


def test_on_a_gpu_it_says_what_stays_there_and_what_streams(plan):
    lines = describe(plan).splitlines()
    assert lines == [
        "dimensions      10",
        "trials          60, 256 items each, 80 gradients between them "
        "(100 evaluations with parents, baselines, finalists and holdout)",
        "workers         1",
        "memory          104.6 GB (128.0 GB free): 1 worker 3.2 GB, the models' files 101.4 GB",
        "of a GPU        84.4 GB a worker: 14.5 GB live model, 50.7 GB of 101.4 GB of models, 4.7 GB while "
        "merging, 12.7 GB for passes",
        "streams         50.7 GB from the host's memory to each GPU for every candidate",
        "disk            15.0 GB (90.0 GB free)",
        "estimated time  2 h",
        "ready",
    ]


def test_what_fits_does_not_stream_and_sharing_is_said(plan):
    text = describe(replace(plan, memory=memory(experts=2)))
    assert "43.5 GB models" in text
    assert "streams" not in text
    halves = describe(replace(plan, memory=memory(experts=2, sharing=Sharing(2, 2))))
    assert "of a GPU (2 workers on each)" in halves


def test_on_cpus_task_vectors_are_kept(plan):
    text = describe(replace(plan, memory=memory(experts=2, device=None), steps=0))
    assert "of a worker     14.5 GB live model, " in text
    assert "task vectors" in text
    assert "gradients" not in text


def test_time_that_is_not_known_is_not_made_up(plan):
    text = describe(replace(plan, memory=None, seconds=None, warnings=("mind this",)))
    assert "memory          cannot be planned here: no GPU" in text
    assert "estimated time  cannot be estimated here: no GPU" in text
    assert text.endswith("warning: mind this\nready")
    assert "2 h, of which search.hours for the search\n" in describe(
        replace(plan, ended_by_hours=True)
    )
