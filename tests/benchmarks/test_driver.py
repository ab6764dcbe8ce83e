import json
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from benchmarks.speed import driver
from evomerge.candidate import Merge
from evomerge.candidate.trial import GradientJob


@pytest.mark.parametrize("sampler", ["random", "gradient"])
def test_a_row_is_of_one_campaign(tmp_path: Path, sampler: str) -> None:
    row = driver.row_of(sampler, "4x30", 40, "cpu", tmp_path)
    assert (row.sampler, row.cluster, row.trials) == (sampler, "4x30", 40)
    assert 0.9 < row.busy <= 1
    assert row.early > 0
    assert row.late > 0
    assert row.memory >= 0
    assert row.database > 0.05
    assert list(tmp_path.iterdir()) == []


def test_workers_wait_for_a_driver_that_takes_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = count()
    monkeypatch.setitem(driver.CHARGES, "wall", lambda: 0.01 * next(ticks))
    slow, fast = (
        driver.row_of("random", f"4x{seconds}", 40, "wall", tmp_path).busy for seconds in (0.5, 500)
    )
    assert slow < 0.9 < 0.99 < fast


def test_outcomes_are_better_near_the_best_point() -> None:
    names = [f"w{n}" for n in range(driver.EXPERTS * driver.LAYERS)]
    near, far = (
        driver.outcomes(dict(zip(names, point, strict=True)))
        for point in (driver._BEST[0], driver._BEST[0] + 0.8)
    )
    assert np.mean(near["task0"]) > np.mean(far["task0"])
    assert {len(values) for values in near.values()} == {driver.ITEMS}


def test_gradients_are_one_for_each_expert_and_layer() -> None:
    step = GradientJob("step", Merge("linear", ()), {"task0": (0, 1)}, {"task0": 1})
    numbers = driver.gradients({}, step).numbers["weight"]
    assert np.shape(numbers) == (driver.LAYERS, 1, driver.EXPERTS)


def test_the_table_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "driver.json"
    arguments = ["--samplers", "random", "--clusters", "2x9", "--trials", "20", "--out", str(out)]
    driver.main(arguments)
    (row,) = json.loads(out.read_text())["rows"]
    assert (row["sampler"], row["cluster"]) == ("random", "2x9")
    assert capsys.readouterr().out.splitlines()[-1].split()[:2] == ["random", "2x9"]
