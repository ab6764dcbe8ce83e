"""What a campaign will cost, on machines of any kind."""

from __future__ import annotations

import json

import pytest

from evomerge.config import Campaign
from evomerge.preflight import campaign_plan as module
from evomerge.preflight.campaign_plan import STARTING_SECONDS, plan, workers_here
from evomerge.preflight.machine import Here
from evomerge.preflight.rates import Rates
from evomerge.workers.placement import Sharing

GB = 10**9
LAPTOP = Here(cores=4, host=16 * GB, host_free=12 * GB)
SERVER = Here(cores=96, host=137 * GB, host_free=128 * GB, gpus=(85 * GB,) * 8)
RATES = Rates(searched=0.1, reported=0.3, gradient=0.5, read=0.01, written=0.02)


@pytest.fixture(autouse=True)
def asked(monkeypatch):
    """Rates are not measured; where they would be is noted."""
    devices = []
    monkeypatch.setattr(module, "rates", lambda _, device: devices.append(device) or RATES)
    return devices


def test_it_states_dimensions_items_memory_disk_and_time(checked):
    found = plan(checked(), LAPTOP)
    assert found.dimensions == 2 * 2  # experts, layer groups
    assert (found.trials, found.items_per_trial, found.steps) == (4, 2 * 8, 0)
    assert found.evaluations > found.trials
    assert found.workers == 4
    assert found.memory_bytes == found.memory.host + found.memory.files > 4 * 700 * 2**20
    assert 0 < found.disk_bytes < found.free_disk_bytes
    assert json.loads(json.dumps(found.to_json()))["memory"]["on_gpu"] is False


def test_time_is_rates_times_evaluations(checked):
    ready = checked("count: auto", "count: 2")
    known = len(ready.space.baselines())
    search = 8 * ((known + 4) * 0.1)
    others = 8 * 0.3 * (known + 4) + 8 * 0.3 * (2 + 5)
    found = plan(ready, LAPTOP)
    assert found.seconds == pytest.approx(STARTING_SECONDS + (search + others) / 2)
    longer = plan(checked("count: auto", "count: 2", "trials: 4", "trials: 400"), LAPTOP)
    assert longer.seconds - found.seconds == pytest.approx((396 * 8 * 0.1 + 4 * 8 * 0.3) / 2)


def test_workers_that_share_cores_make_nothing_faster(checked):
    fitting, many = (
        plan(checked("count: auto", f"count: {n}", "trials: 4", "trials: 400"), LAPTOP)
        for n in (4, 10_000)
    )
    assert many.workers == 10_000
    assert many.seconds == fitting.seconds


def test_gradients_take_time(checked):
    plain = plan(checked("trials: 4", "trials: 40"), LAPTOP)
    found = plan(checked("cmaes, trials: 4", "gradient, trials: 40"), LAPTOP)
    assert found.steps == 8 * 40  # workers that would be idle begin paths
    assert found.preparation.taught == 2 * 8  # by the teachers whose predictions are the target
    assert found.seconds - plain.seconds == pytest.approx((320 * 2 * 8 * 0.5 + 2 * 8 * 0.01) / 4)


def test_hours_end_a_search(checked):
    hours = 400 * 8 * 0.1 / 4 / 3600  # what 400 trials take
    short = plan(checked("trials: 4", f"trials: 4000, hours: {hours}"), LAPTOP)
    assert short.ended_by_hours
    assert short.trials == 400
    alone = plan(checked("trials: 4", f"hours: {hours}"), LAPTOP)
    assert alone.ended_by_hours
    assert alone.trials == 400
    long = plan(checked("trials: 4", "trials: 4, hours: 9"), LAPTOP)
    assert not long.ended_by_hours
    assert long.trials == 4
    assert short.seconds - long.seconds == pytest.approx(396 * 8 * 0.1 / 4 + 4 * 8 * 0.3 / 4)


def test_workers_on_gpus_are_counted_by_gpus_and_timed_there(checked, asked):
    found = plan(checked("count: auto", "count: auto, cpus: 2, gpus: 0.5"), SERVER)
    assert found.workers == 16
    assert found.memory.on_gpu
    assert found.memory.sharing == Sharing(node=16, device=2)
    assert asked == ["cuda"]


def test_models_are_planned_over_all_gpus_of_a_worker(checked, asked):
    found = plan(checked("count: auto", "count: auto, gpus: 2"), SERVER)
    assert found.workers == 4
    assert found.memory.sharing == Sharing(node=4, device=1)
    one, two = found.memory.devices
    assert one.weights + two.weights == found.memory.weights
    assert min(one.weights, two.weights) > 0
    assert json.dumps(found.to_json())


def test_without_the_gpus_that_are_asked_for_nothing_is_made_up(checked, asked):
    found = plan(checked("count: auto", "count: auto, gpus: 1"), LAPTOP)
    assert (found.seconds, found.memory, found.memory_bytes, found.workers) == (None, None, 0, 1)
    assert asked == []
    assert "there is no GPU here" in found.warnings[-1]
    assert json.dumps(found.to_json())


@pytest.mark.parametrize(
    ("workers", "machine", "expected"),
    [
        ({"count": "auto", "cpus": 2}, LAPTOP, Sharing(2, 2)),
        ({"count": 3, "cpus": 2}, LAPTOP, Sharing(3, 3)),  # they may share cores
        ({"count": 0}, LAPTOP, Sharing(1, 1)),
        ({"count": "auto", "gpus": 1}, SERVER, Sharing(8, 1)),
        ({"count": "auto", "gpus": 0.25, "cpus": 2}, SERVER, Sharing(32, 4)),
        ({"count": 3, "gpus": 1}, SERVER, Sharing(3, 1)),
        ({"count": "auto", "gpus": 4}, SERVER, Sharing(2, 1)),
    ],
)
def test_workers_are_what_a_pool_starts(workers, machine, expected):
    text = {
        "name": "x",
        "models": {"base": "a", "experts": ["b"]},
        "space": {"method": "ties", "parameters": {"weight": {"low": 0, "high": 1}}},
        "objectives": [{"task": "t", "metric": "acc"}],
        "workers": workers,
    }
    assert workers_here(Campaign.model_validate(text), machine) == expected
