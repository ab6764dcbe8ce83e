"""The Python API on the zoo, small: one campaign, then everything that can be done with it."""

import inspect
import json
import pydoc
import subprocess
import sys
from pathlib import Path

import pytest

import evomerge
from evomerge.api import campaigns
from evomerge.cli import run_command
from evomerge.errors import CampaignError, ResultsError, UserError

ROOT = Path(__file__).parents[2]
FUNCTIONS = ("check", "compare", "merge", "open", "report", "resume", "score", "search")
TEXT = f"""\
name: small
models: {{base: "zoo:base", experts: ["zoo:facts", "zoo:translation"], dtype: float32}}
space: {{method: task_arithmetic, parameters: {{weight: {{low: 0.0, high: 1.2}}}}}}
objectives:
  - {{task: zoo_facts, metric: gold_loglikelihood, report: exact_match}}
  - {{task: zoo_translation, metric: gold_loglikelihood}}
tasks_path: {ROOT}/benchmarks/tasks
items: {{search: 4, select: 4, holdout: 4}}
search: {{sampler: random, trials: 3, finalists: 1}}
workers: {{count: 1}}
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("api") / "c.yaml"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="module")
def events(file):
    """Run the campaign through the command line; one worker needs no Ray."""
    command = [sys.executable, "-m", "evomerge", "search", str(file), "--display", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stderr.splitlines()]


@pytest.fixture(scope="module")
def result(file, events):
    return evomerge.open(file.parent / "results" / "small")


def test_there_is_an_event_a_trial_and_the_result_comes_last(events, result):
    trials = [one for one in events if one["event"] == "trial"]
    assert [one["number"] for one in trials] == [0, 1, 2]
    assert all(one["seconds"] > 0 for one in trials)
    study = {trial.number: trial.value for trial in result.study.trials}
    assert {one["number"]: one["value"] for one in trials} == study
    assert events[0] == {"event": "message", "message": "small: starting"}
    last = events[-1]
    assert (last["event"], last["number"]) == ("result", result.best.number)
    assert Path(last["model"], "config.json").is_file()


def test_a_finished_campaign_is_only_read(result, monkeypatch, capsys):
    def refuse(*_args, **_kwargs):
        raise AssertionError("a pool")

    monkeypatch.setattr(campaigns, "started_workers", refuse)
    monkeypatch.setattr("evomerge.run.preflight", refuse)
    assert evomerge.resume(result.folder).best == result.best
    assert run_command(["resume", str(result.folder)]) == 0
    assert "small: holdout items" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="a pool"):
        evomerge.resume(result.folder, trials=1)


def test_a_table_of_all_trials(result):
    table = result.to_pandas()
    assert list(table["number"]) == [0, 1, 2]
    wanted = {"state", "method", "value", "seconds", "zoo_facts/gold_loglikelihood"}
    assert wanted <= set(table.columns)
    assert {"params_weight/facts", "params_weight/translation"} <= set(table.columns)
    assert table.notna().drop(columns="failure").all().all()


def test_the_study_names_its_values_and_holds_scores_by_task(result):
    assert result.study.metric_names == ["mean"]
    table = result.to_pandas()
    for trial in result.study.trials:
        for task in ("zoo_facts", "zoo_translation"):
            name = f"{task}/gold_loglikelihood"
            assert trial.user_attrs[name] == table[name][trial.number]


def test_the_other_functions(result, file, tmp_path):
    assert evomerge.check(file).trials == 3
    assert evomerge.report(result.folder).to_json() == result.leaderboard.to_json()
    evomerge.merge(result.best.candidate, tmp_path / "by_recipe")
    evomerge.merge(result.folder, tmp_path / "by_trial", trial="best")
    evomerge.merge(result.folder / "best" / "recipe.yaml", tmp_path / "by_file")
    weights = {
        (tmp_path / name / "model.safetensors").read_bytes()
        for name in ("by_recipe", "by_trial", "by_file")
    }
    assert len(weights) == 1
    scores = evomerge.score("zoo:facts", campaign=result.folder)
    assert len(scores.scored.tasks["zoo_facts"].items) == 4


def test_wrong_input_is_told_from_python_too(result, file, tmp_path):
    with pytest.raises(UserError, match="is a folder; say which trial"):
        evomerge.merge(result.folder, tmp_path / "out")
    with pytest.raises(UserError, match="either tasks or campaign"):
        evomerge.score("zoo:facts")
    with pytest.raises(ResultsError, match="the results folder exists"):
        evomerge.search(file)
    with pytest.raises(ResultsError, match="holds no campaign"):
        evomerge.open(tmp_path)
    (tmp_path / "bad.yaml").write_text(TEXT.replace("trials", "trails"))
    with pytest.raises(CampaignError, match=r'bad\.yaml:9: .* did you mean "trials"'):
        evomerge.search(tmp_path / "bad.yaml")


def test_a_campaign_without_a_winner_is_a_partial_result(file, tmp_path):
    class Impatient(evomerge.progress.Display):
        def show(self, progress):
            if progress.stage == "search" and progress.done == 1:
                raise KeyboardInterrupt

        def say(self, message): ...
        def event(self, name, /, **fields): ...
        def close(self): ...

    with pytest.raises(KeyboardInterrupt):
        evomerge.search(file, out=tmp_path / "out", display=Impatient())
    partial = evomerge.open(tmp_path / "out")
    assert repr(partial).startswith("<Result small: no winner yet")
    assert len(partial.to_pandas()) >= 1
    assert partial.winner is None


def test_the_package_shows_its_functions_with_signatures_and_help():
    assert set(FUNCTIONS) | {"Campaign", "Recipe", "Result"} <= set(dir(evomerge))
    for name in FUNCTIONS:
        function = getattr(evomerge, name)
        signature = inspect.signature(function)
        assert signature == inspect.signature(getattr(campaigns, name))
        assert signature.parameters
        assert not any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values())
        shown = pydoc.plain(pydoc.render_doc(function))
        assert inspect.getdoc(getattr(campaigns, name)).splitlines()[0] in shown
        assert next(iter(signature.parameters)) in shown


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, evomerge, evomerge.api, evomerge.store;"
        "evomerge.open; evomerge.resume; evomerge.Campaign;"
        "heavy = ('torch', 'ray', 'optuna', 'sqlalchemy', 'transformers', 'lm_eval');"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_typo_is_answered_before_anything_heavy_is_imported(tmp_path):
    (tmp_path / "bad.yaml").write_text(TEXT.replace("trials", "trails"))
    code = (
        "import sys; from evomerge.cli import run_command; status = run_command(sys.argv[1:]);"
        "print(status, [m for m in ('torch', 'ray', 'optuna', 'lm_eval') if m in sys.modules])"
    )
    for command in ("search", "check"):
        done = subprocess.run(
            [sys.executable, "-c", code, command, str(tmp_path / "bad.yaml")],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "2 []\n"
        assert done.stderr.count("\n") == 1
