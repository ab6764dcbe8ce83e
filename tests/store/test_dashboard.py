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
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import optuna
import pytest
from optuna.distributions import FloatDistribution

from evomerge.candidate.trial import Failure, FailureKind, Outcome, Pruned
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
    entry = store.trials()[0].entry
    running = replace(entry, name="trial 5", number=5)
    store.asked(running, {"weight": 0.5}, {"weight": FloatDistribution(0.0, 1.0)})
    return store


@pytest.fixture
def server(played: Store, tmp_path: Path) -> Iterator[str]:
    copy = tmp_path / "copy.db"
    source, target = sqlite3.connect(played.folder / "study.db"), sqlite3.connect(copy)
    with closing(source), closing(target):
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
    assert found["objective_names"] == ["mean"]
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


def test_notes_are_kept_as_the_dashboard_keeps_them(played: Store) -> None:
    (trial,) = (one for one in played.optuna_study().trials if one.number == 3)
    theirs = optuna.create_study()
    number = -1
    while number != trial._trial_id:  # so that both have the same id there
        number = (asked := theirs.ask())._trial_id
    ours = played.optuna_study()._storage.get_study_system_attrs(1)
    prefix = f"dashboard:{trial._trial_id}:"
    kept = {key: value for key, value in ours.items() if key.startswith(prefix)}
    body = kept[f"{prefix}note_str:0"]
    dashboard.save_note(asked, body)
    assert theirs._storage.get_study_system_attrs(theirs._study_id) == kept


def test_a_long_note_is_kept_whole(make_store: Any, lab: SimpleNamespace) -> None:
    store = make_store()
    reason = "x" * 5000
    lab.tell(store, 0, Outcome(failure=Failure(FailureKind.MERGE, reason)))
    attributes = store.optuna_study()._storage.get_study_system_attrs(1)
    note = dashboard._note.get_note_from_system_attrs(attributes, 1)
    assert f"Failed, merge: `{reason}`" in note["body"]


def test_only_so_many_trials_have_notes(
    make_store: Any, lab: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evomerge.store.dashboard.NOTED", 2)
    store = make_store()
    lab.fill(store)
    attributes = store.optuna_study()._storage.get_study_system_attrs(1)
    assert {key.split(":")[1] for key in attributes if key.startswith("dashboard:")} == {"1", "2"}
