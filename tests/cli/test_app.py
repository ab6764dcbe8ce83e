import errno
import json
import subprocess
import sys

import pytest

from evomerge import __version__, cli
from evomerge.errors import EvomergeError, Interrupted, UserError
from evomerge.zoo import resolve

COMMANDS = (
    "init", "check", "search", "resume", "report", "compare", "merge", "score", "schema", "zoo build",
)  # fmt: skip


def run(capsys, *arguments):
    status = cli.run_command(list(arguments))
    out, err = capsys.readouterr()
    return status, out, err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(capsys, command):
    status, out, err = run(capsys, *command.split(), "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"Usage: evomerge {command}")


def test_help_names_every_command_and_imports_nothing_heavy():
    code = (
        "import sys; from evomerge import cli; status = cli.run_command(['--help']);"
        "print([m for m in ('torch', 'ray', 'optuna', 'transformers', 'lm_eval') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]")
    assert all(command.split()[0] in done.stdout for command in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chekc", "x"], "No such command 'chekc'"),
        (["check"], "Missing argument 'CAMPAIGN.yaml'"),
        (["check", "--jsno", "x"], "No such option: --jsno"),
        (["search", "x", "--trials", "0"], "'--trials'"),
        (["check", "none.yaml"], "none.yaml: no such file; expected a YAML file"),
        (["score", "zoo:base"], "say what to score on: --tasks A,B or --campaign DIR"),
        (["merge", ".", "out"], ".: is a folder; expected a recipe"),
        (["merge", ".", "out", "--trial", "7"], ".: holds no campaign"),
    ],
)
def test_wrong_usage_is_status_2_and_one_line(capsys, arguments, message):
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (UserError("bad", file="f"), 2, "evomerge: f: bad\n"),
        (EvomergeError("failed"), 1, "evomerge: failed\n"),
        (Interrupted("go on with: evomerge resume d"), 130, "go on with: evomerge resume d\n"),
        (
            OSError(28, "No space left on device", "study.db"),
            1,
            "study.db: No space left on device\n",
        ),
    ],
)
def test_errors_are_one_line_and_a_status(capsys, monkeypatch, error, status, message):
    def fail(*_args, **_kwargs):
        raise error

    monkeypatch.setattr("evomerge.preflight.schema.json_schema", fail)
    found, out, err = run(capsys, "schema")
    assert (found, out) == (status, "")
    assert err.endswith(message)


@pytest.mark.parametrize("place", ["file/x", "/proc/x"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "CAMPAIGN", "--out", "PLACE"],
        ["zoo", "build", "PLACE"],
        ["init", "zoo:base", "zoo:facts", "--tasks", "zoo_facts", "-o", "PLACE"],
        ["merge", "RECIPE", "PLACE"],
    ],
)
def test_a_place_that_cannot_be_written_is_status_2_and_leaves_nothing(
    capsys, monkeypatch, tmp_path, pytestconfig, arguments, place
):
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"merge_method: passthrough\nmodels: [{{model: {resolve('zoo:base')}}}]\n")
    (tmp_path / "file").touch()
    campaign = pytestconfig.rootpath / "search_spaces" / "quickstart.yaml"
    known = {"PLACE": place, "CAMPAIGN": str(campaign), "RECIPE": str(recipe)}
    status, out, err = run(capsys, *(known.get(argument, argument) for argument in arguments))
    assert (status, out) == (2, "")
    assert place in err
    assert "cannot be written" in err
    assert err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "r.yaml"]


@pytest.mark.parametrize(("code", "status"), [(errno.EACCES, 2), (errno.EROFS, 2), (errno.EIO, 1)])
def test_a_path_that_the_system_refuses_is_the_users_and_a_broken_disk_is_not(
    capsys, monkeypatch, code, status
):
    def fail():
        raise OSError(code, "refused", "some/path")

    monkeypatch.setattr("evomerge.preflight.schema.json_schema", fail)
    assert run(capsys, "schema") == (status, "", "evomerge: some/path: refused\n")


def test_version(capsys):
    assert run(capsys, "--version") == (0, f"evomerge {__version__}\n", "")


def test_schema_is_json(capsys):
    status, out, _ = run(capsys, "schema")
    assert status == 0
    assert json.loads(out)["properties"]["space"]
