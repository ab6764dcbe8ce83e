"""optuna-dashboard on a copy of a results folder: names, values, states and notes."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import optuna
import pytest

from evomerge.candidate.trial import Outcome, Pruned
from evomerge.store import Store
from tests.played_campaign import lab, make_store

__all__ = ["lab", "make_store"]

dashboard = pytest.importorskip("optuna_dashboard")


@pytest.fixture
def played(make_store: Any, lab: SimpleNamespace) -> Store:
    """Trials that are complete (0 to 2), failed (3), pruned (4) and still running (5)."""
    store: Store = make_store()
    lab.fill(store)
    scored = lab.outcome("trial 0", "search")
    pruned = Outcome(scored.scores, cost=scored.cost, pruned=Pruned("worse than `trial 1`", 2))
    lab.tell(store, 4, pruned, [0.25])
    with sqlite3.connect(store.folder / "study.db") as connection:
        (before,) = connection.execute("SELECT COUNT(*) FROM study_system_attributes").fetchone()
    assert before > 5
    entry = store.trials()[0].entry
    from dataclasses import replace

    from optuna.distributions import FloatDistribution

    running = replace(entry, name="trial 5", number=5)
    store.asked(running, {"weight": 0.5}, {"weight": FloatDistribution(0.0, 1.0)})
    return store


@pytest.fixture
def server(played: Store, tmp_path: Path) -> Iterator[str]:
    copy = tmp_path / "copy.db"
    with closing(sqlite3.connect(played.folder / "study.db")) as source:
        with closing(sqlite3.connect(copy)) as target:
            source.backup(target)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = shutil.which("optuna-dashboard", path=str(Path(sys.executable).parent))
    assert program is not None
    command = [program, f"sqlite:///{copy}", "--port", str(port), "--host", "127.0.0.1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}/api"
    finally:
        process.terminate()
        process.wait(30)


def read(url: str) -> Any:
    for _ in range(300):
        try:
            with urlopen(url, timeout=30) as answer:
                return json.load(answer)
        except URLError:
            time.sleep(0.1)
    raise AssertionError(f"{url} does not answer")


def test_the_dashboard_shows_names_values_states_and_notes(server: str, played: Store) -> None:
    (study,) = read(f"{server}/studies")["study_summaries"]
    assert study["study_name"] == "small"
    found = read(f"{server}/studies/{study['study_id']}")
    assert found["metric_names"] == ["mean"]
    assert found["directions"] == ["maximize"]
    assert [one["name"] for one in found["union_search_space"]] == ["weight"]
    trials = sorted(found["trials"], key=lambda trial: trial["number"])
    states = ["Complete"] * 3 + ["Fail", "Pruned", "Running"]
    assert [trial["state"] for trial in trials] == states
    assert [trial["values"][0] for trial in trials[:3]] == [
        pytest.approx(trial.values[0]) for trial in played.trials()[:3]
    ]
    assert trials[4]["intermediate_values"][-1]["value"] == 0.25
    notes = [trial["note"]["body"] for trial in trials]
    assert all(note.startswith("Method: `task_arithmetic`") for note in notes[:5])
    assert "Failed, not finite: `NaN in layer 3`" in notes[3]
    assert "Pruned: `worse than 'trial 1'`" in notes[4]
    assert f"evomerge merge {played.folder} OUT_DIR --trial 4`" in notes[4]
    assert notes[5] == ""
    attributes = {one["key"]: one["value"] for one in trials[0]["user_attrs"]}
    assert {"method", "zoo_facts/exact_match"} <= set(attributes)


def test_notes_are_rows_that_the_dashboard_writes_itself(played: Store) -> None:
    ours = played.optuna_study()
    storage = optuna.storages.InMemoryStorage()
    theirs = optuna.create_study(storage=storage)
    theirs.add_trial(ours.trials[4])
    from optuna_dashboard import save_note

    written = played.optuna_study()._storage.get_study_system_attrs(1)
    pieces = {k: v for k, v in written.items() if k.startswith("dashboard:5:")}
    body = "".join(pieces[key] for key in sorted(pieces) if "note_str" in key)
    save_note(theirs.trials[0], body) if False else save_note(theirs, body)
