"""Who is told of a campaign on the zoo while it runs, stops and goes on."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import ClassVar

import pytest

import evomerge
from evomerge.cli import run_command
from evomerge.config import Campaign
from evomerge.loggers import LOGGERS, Logger, broadcast
from evomerge.progress import NoDisplay
from tests.small_campaign import TEXT


class Recorder(evomerge.Callback):
    def __init__(self):
        self.trials, self.stages, self.results, self.closed = [], [], [], 0

    def on_trial(self, trial):
        self.trials.append(trial)

    def on_stage(self, stage):
        self.stages.append(stage)

    def on_end(self, result):
        self.results.append(result)

    def close(self):
        self.closed += 1


class Said(NoDisplay):
    def __init__(self, stop_at=None):
        self.messages, self.stop_at = [], stop_at

    def show(self, progress):
        if progress.stage == "search" and progress.done == self.stop_at:
            raise KeyboardInterrupt

    def say(self, message):
        self.messages.append(message)


class Failing(evomerge.Callback):
    def on_trial(self, trial):
        raise RuntimeError("no space left")


class Hanging(evomerge.Callback):
    def on_end(self, result):
        threading.Event().wait(60)


class Opened(Logger):
    """Keeps what it was opened for."""

    runs: ClassVar[list] = []

    def __init__(self, run, *, color: str = "red"):
        super().__init__(run)
        self.runs.append((run, color))


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    path = tmp_path_factory.mktemp("callbacks") / "c.yaml"
    path.write_text(TEXT.replace("trials: 6", "trials: 4"))
    return Campaign.load(path)


@pytest.fixture(scope="module")
def told(campaign):
    recorder, said = Recorder(), Said()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LOGGERS, "opened", Opened)
        patch.setattr(broadcast, "SECONDS_TO_END", 0.5)
        loggers = [{"name": "opened", "color": "blue"}]
        data = campaign.model_dump(mode="json", by_alias=True) | {"loggers": loggers}
        callbacks = [Failing(), recorder, Hanging()]
        result = evomerge.search(Campaign.model_validate(data), display=said, callbacks=callbacks)
    return result, recorder, said


def test_every_trial_is_told_as_it_is_stored(told):
    result, recorder, _ = told
    table = result.to_pandas()
    assert [trial.number for trial in recorder.trials] == [0, 1, 2, 3]
    for trial, row in zip(recorder.trials, table.to_dict("records"), strict=True):
        assert trial.state == row["state"] == "complete"
        assert trial.values == {"mean": row["value"]}
        assert trial.params == {
            name: row[f"params_{name}"] for name in result.study.trials[0].params
        }
        assert trial.scores == {name: row[name] for name in row if name.endswith("loglikelihood")}
        assert trial.seconds == row["seconds"]
        assert trial.method == "task_arithmetic"
    best = [max(table["value"][: number + 1]) for number in range(4)]
    assert [trial.best for trial in recorder.trials] == best


def test_stages_and_the_result_are_told(told):
    result, recorder, _ = told
    assert [stage.stage for stage in recorder.stages][:2] == ["parents and baselines", "select"]
    assert recorder.stages[-1].stage == "holdout"
    board = result.leaderboard
    shown = {(row.name, row.role): row.scores for row in recorder.stages[0].rows}
    assert shown["facts", "expert"]["zoo_facts/gold_loglikelihood"] == (
        board.row("expert:facts").splits["search"].tasks["zoo_facts"]["gold_loglikelihood"].value
    )
    held = {row.name: row.scores for row in recorder.stages[-1].rows}
    assert result.best.name in held
    assert [one.folder for one in recorder.results] == [result.folder]
    assert recorder.closed == 1


def test_those_that_fail_or_hang_are_told_once(told):
    _, _, said = told
    failed = [message for message in said.messages if "failed and is left out" in message]
    assert failed == [
        "callback 0 (Failing) failed and is left out from now on: RuntimeError: no space left",
        "callback 2 (Hanging) failed and is left out from now on: it has not ended within 0.5 s",
    ]


def test_a_logger_is_opened_for_the_results_folder(told):
    result, _, _ = told
    ((run, color),) = Opened.runs
    assert color == "blue"
    assert (run.name, run.results) == ("small", result.folder)
    assert run.folder == result.folder / "loggers" / "opened"
    assert run.settings["search"]["sampler"] == "cmaes"
    assert len(run.id) == 32


def test_a_campaign_that_is_stopped_goes_on_with_the_same_run(campaign, tmp_path, monkeypatch):
    monkeypatch.setitem(LOGGERS, "opened", Opened)
    monkeypatch.setattr(Opened, "runs", [])
    loggers = [{"name": "opened", "folder": str(tmp_path / "elsewhere")}]
    data = campaign.model_dump(mode="json", by_alias=True)
    data |= {"loggers": loggers, "out": str(tmp_path / "out")}
    first, later, idle = Recorder(), Recorder(), Recorder()
    with pytest.raises(KeyboardInterrupt):
        evomerge.search(Campaign.model_validate(data), display=Said(2), callbacks=[first])
    assert [trial.number for trial in first.trials] == [0, 1]
    assert (len(first.stages), first.results, first.closed) == (1, [], 1)
    evomerge.resume(tmp_path / "out", callbacks=[later])
    assert [trial.number for trial in later.trials] == [2, 3]
    assert later.stages[0].stage == "select"
    assert (len(later.results), later.closed) == (1, 1)
    evomerge.resume(tmp_path / "out", callbacks=[idle])
    assert (idle.trials, idle.results, idle.closed) == ([], [], 0)
    runs = [run for run, _ in Opened.runs]
    assert [run.folder for run in runs] == [tmp_path / "elsewhere"] * 2
    assert len({run.id for run in runs}) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "loggers: [tensorbord]",
            'c.yaml:19: loggers.0: unknown logger "tensorbord"; did you mean',
        ),
        (
            "loggers: [{name: wandb, projekt: x}]",
            'c.yaml:19: loggers.0.projekt: wandb has no option "projekt"; did you mean "project"?',
        ),
        ("loggers: [{name: wandb, mode: on}]", 'c.yaml:19: loggers.0.mode: found "on", expected '),
        ("loggers: [absent]", "c.yaml:19: loggers.0: needs the package absent_package; install"),
    ],
)
def test_wrong_loggers_are_refused_before_the_search(tmp_path, line, message, monkeypatch, capsys):
    absent = type("Absent", (Logger,), {"package": "absent_package", "install": "absent"})
    monkeypatch.setitem(LOGGERS, "absent", absent)
    (tmp_path / "c.yaml").write_text(f"{TEXT}{line}\n")
    for command in ("check", "search"):
        assert run_command([command, str(tmp_path / "c.yaml")]) == 2
        told = capsys.readouterr().err
        assert message in told
        assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_no_library_of_a_logger_is_imported_to_check_it(tmp_path):
    (tmp_path / "c.yaml").write_text(f"{TEXT}loggers: [tensorboard, {{name: wandb, bad: 1}}]\n")
    code = (
        "import sys; from evomerge.cli import run_command; status = run_command(sys.argv[1:]);"
        "print(status, [m for m in ('torch', 'wandb', 'tensorboard') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "search", str(tmp_path / "c.yaml")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "2 []\n", json.dumps(done.stderr)
