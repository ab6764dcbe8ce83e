from __future__ import annotations

import csv
import io
import json

import pytest

from evomerge.candidate import Conditional, Recipe, Slice, Source
from evomerge.cli import run_command
from evomerge.errors import ResultsError
from evomerge.report.formats import write
from evomerge.report.trials import recipe_numbers, trial_report, trials_report
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
    assert found["recipe"] == recipe_numbers(trial.candidate)
    rows = list(csv.DictReader(io.StringIO(write(trial_report(store, trial.number), "csv"))))
    assert [float(row["value"]) for row in rows] == [one["value"] for one in found["recipe"]]
    shown = write(trial_report(store, trial.number))
    assert f"{found['recipe'][-1]['value']:.3f}" in shown.splitlines()[-1]
    with pytest.raises(ResultsError, match="found 99, expected the number of a trial"):
        write(trial_report(store, 99))


def test_numbers_are_told_apart_by_model_layers_and_tensors() -> None:
    each = (Conditional(0.5, "self_attn"), Conditional(0.25, "mlp"), Conditional(1.0))
    recipe = Recipe(
        "ties",
        base_model="/m/base",
        slices=(
            Slice((Source("/m/base", (0, 2)), Source("/m/a", (0, 2), {"weight": each}))),
            Slice((Source("/m/base", (2, 4)), Source("/m/a", (2, 4), {"weight": (0.1, 0.2)}))),
        ),
        parameters={"normalize": True},
    )
    found = [tuple(one.values()) for one in recipe_numbers(recipe)]
    assert found == [
        ("all", "all", "all", "normalize", True),
        ("a", "0-2", "self_attn", "weight", 0.5),
        ("a", "0-2", "mlp", "weight", 0.25),
        ("a", "0-2", "rest", "weight", 1.0),
        ("a", "2-4", "all", "weight", "0.1, 0.2"),
    ]


def test_models_of_one_name_are_told_apart() -> None:
    sources = (Source("/x/a", parameters={"weight": 0.5}), Source("/y/a", parameters={"weight": 1}))
    found = recipe_numbers(Recipe("linear", models=sources))
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
