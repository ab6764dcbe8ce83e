"""A disk that fills up at any point of a campaign: one line, nothing lost, and on it goes."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from optuna.distributions import FloatDistribution

from evomerge.candidate.trial import Entry, Outcome
from evomerge.config import Campaign
from evomerge.errors import EvomergeError, UserError
from evomerge.store import Store

SPACE = {f"w{i}": FloatDistribution(0.0, 1.0) for i in range(40)}
DISK = 32 * 2**20
NEED = 5 * 2**20
"""What the campaign below takes, write-ahead log and backup included, a little less."""
TRIALS = 60


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of the test's own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={DISK}", "none", str(folder)]
    if os.getuid() != 0 or subprocess.run(["mount", *options], capture_output=True).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def go_on(store: Store, candidate: Callable[..., Entry], outcome: Outcome) -> None:
    """Ask and tell what is left of a campaign, one trial ahead, as a driver does."""
    trials = store.trials()
    waiting = [trial.entry for trial in trials if trial.state == "asked"]
    number = len(trials)
    while number < TRIALS or waiting:
        if number < TRIALS:
            point = {name: (number + 1) / (i + 61) for i, name in enumerate(SPACE)}
            store.asked(candidate(number), point, SPACE)
            waiting.append(candidate(number))
            number += 1
        done = waiting.pop(0)
        store.told(done, outcome, [float(done.number or 0)])
        told.append(done.number)


told: list[int | None] = []


@pytest.mark.parametrize("tenth", range(10))
def test_a_disk_that_fills_up_at_any_point(
    disk: Path,
    campaign: Campaign,
    candidate: Callable[..., Entry],
    scored: Outcome,
    tenth: int,
) -> None:
    """Room for a tenth of the campaign, two tenths, ...: it stops, and goes on when there is room."""
    told.clear()
    ballast, out = disk / "ballast", disk / "out"
    ballast.write_bytes(bytes(DISK - NEED * tenth // 10 - 8192))

    def begin() -> None:
        with Store.create(out, campaign, {}, directions=["maximize"]) as store:
            go_on(store, candidate, scored)

    with pytest.raises(EvomergeError) as stopped:
        begin()
    assert "\n" not in str(stopped.value)
    assert "full" in str(stopped.value) or "No space left" in str(stopped.value)
    assert not isinstance(stopped.value, UserError)
    before = list(told)
    ballast.unlink()
    if not (out / "study.db").exists():
        Store.create(out, campaign, {}, directions=["maximize"]).close()
    with closing(sqlite3.connect(out / "study.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    with Store.open(out, write=True) as again:
        finished = [t.number for t in again.trials() if t.state == "complete"]
        assert finished == before
        go_on(again, candidate, scored)
        trials = again.trials()
        assert [(t.number, t.state, t.values) for t in trials] == [
            (number, "complete", (float(number),)) for number in range(TRIALS)
        ]
        assert told == list(range(TRIALS))  # none lost, none twice
