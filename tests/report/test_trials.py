from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

from evomerge.candidate import Coefficients, Merge
from evomerge.cli import run_command
from evomerge.errors import ResultsError
from evomerge.report.formats import write
from evomerge.report.trials import numbers_of, trial_report, trials_report
from evomerge.store import Store


def test_every_trial_is_listed_in_every_format(store: Store) -> None:
    trials = store.trials()
    assert trials
    rows = list(csv.DictReader(io.StringIO(write(trials_report(store), "csv"))))
    assert [int(row["number"]) for row in rows] == [trial.number for trial in trials]
    for row, trial in zip(rows, trials, strict=True):
        assert row["state"] == trial.state
        for name, value in trial.params.items():
            assert float(row[f"params_{name}"]) == value
        if trial.state == "complete" and trial.outcome is not None:
            for task, scores in trial.outcome.scores.items():
                for metric, estimate in scores.values.items():
                    assert float(row[f"{task}/{metric}"]) == estimate.value
    listed = json.loads(write(trials_report(store), "json"))
    assert [row["number"] for row in listed] == [trial.number for trial in trials]
    table = write(trials_report(store))
    assert table.split().count("task_arithmetic") == len(trials)
    assert "extract" in table
    assert "params_" not in table


def test_one_trial_shows_its_weights(store: Store) -> None:
    trial = store.trials()[1]
    found = json.loads(write(trial_report(store, trial.number), "json"))
    assert found["number"] == trial.number
    assert found["recipe"] == numbers_of(trial.candidate)
    rows = list(csv.DictReader(io.StringIO(write(trial_report(store, trial.number), "csv"))))
    assert [float(row["value"]) for row in rows] == [one["value"] for one in found["recipe"]]
    shown = write(trial_report(store, trial.number))
    assert f"{found['recipe'][-1]['value']:.3f}" in shown.splitlines()[-1]
    with pytest.raises(ResultsError, match="found 99, expected the number of a trial"):
        write(trial_report(store, 99))


def test_numbers_are_told_apart_by_model_layers_and_tensors() -> None:
    merge = Merge(
        "ties",
        ("/m/a",),
        "/m/base",
        groups=((0, 2), (2, 4)),
        components=("self_attn", "mlp"),
        own={"weight": (((0.5,), (0.25,), (1.0,)), ((0.1,), (0.2,), (0.3,)))},
        shared={"lambda": ((1.5,), (0.5,))},
        fixed={"normalize": True},
    )
    found = [tuple(one.values()) for one in numbers_of(merge)]
    assert found == [
        ("all", "all", "all", "normalize", True),
        ("a", "0-2", "self_attn", "weight", 0.5),
        ("a", "0-2", "mlp", "weight", 0.25),
        ("a", "0-2", "rest", "weight", 1.0),
        ("all", "0-2", "all", "lambda", 1.5),
        ("a", "2-4", "self_attn", "weight", 0.1),
        ("a", "2-4", "mlp", "weight", 0.2),
        ("a", "2-4", "rest", "weight", 0.3),
        ("all", "2-4", "all", "lambda", 0.5),
    ]


def test_coefficients_by_row_are_counted() -> None:
    coefficients = Coefficients(
        {"w": np.ones((1, 5), np.float32), "v": np.ones((1, 1), np.float32)}
    )
    merge = Merge(
        "ties", ("/m/a",), "/m/base", own={"weight": (((0.5,),),)}, coefficients=coefficients
    )
    assert [tuple(one.values()) for one in numbers_of(merge)] == [
        ("a", "all", "all", "weight", 0.5),
        ("all", "all", "each its own", "weight", "+ 6 by tensor and row"),
    ]


def test_models_of_one_name_are_told_apart() -> None:
    found = numbers_of(Merge("linear", ("/x/a", "/y/a"), own={"weight": (((0.5, 1.0),),)}))
    assert [one["model"] for one in found] == ["/x/a", "/y/a"]


def test_the_command_line_shows_them(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(store.folder)
    assert run_command(["report", folder, "--trials", "--format", "csv"]) == 0
    assert capsys.readouterr().out.startswith("number,state,")
    assert run_command(["report", folder, "--trial", "0"]) == 0
    assert "weight" in capsys.readouterr().out
    for wrong in (
        ["--trial", "99"],
        ["--trials", "--trial", "0"],
        ["--trials", "--split", "select"],
    ):
        assert run_command(["report", folder, *wrong]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
