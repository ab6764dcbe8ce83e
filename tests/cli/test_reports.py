"""`report` and `compare` on a small folder: what they print, and what they refuse in one line."""

import csv
import io
import json

import pytest

from evomerge import cli
from tests.small_results import TASK, write_results


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return str(write_results(tmp_path_factory.mktemp("results") / "out"))


def run(capsys, *arguments):
    status = cli.run_command([str(one) for one in arguments])
    out, err = capsys.readouterr()
    return status, out, err


def test_a_report_is_the_leaderboard_on_the_last_items_or_those_asked_for(results, capsys):
    status, out, err = run(capsys, "report", results)
    assert (status, err) == (0, "")
    assert out.startswith("small: holdout items")
    assert "trial 0 (winner)" in out
    assert run(capsys, "report", results, "--split", "search")[1].startswith("small: search items")
    rows = json.loads(run(capsys, "report", results, "--format", "json")[1])["rows"]
    assert [row["name"] for row in rows] == ["base", "facts", "trial 0"]


def test_trials_are_listed_all_or_one(results, capsys):
    status, out, _ = run(capsys, "report", results, "--trials", "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(out))
    assert (status, row["number"], row[f"{TASK}/exact_match"]) == (0, "0", "0.75")
    one = json.loads(run(capsys, "report", results, "--trial", "0", "--format", "json")[1])
    assert one["number"] == 0
    assert [number["value"] for number in one["recipe"]] == [0.5]


def test_campaigns_are_compared_under_their_folders(results, tmp_path, capsys):
    other = write_results(tmp_path / "other")
    arguments = ("compare", results, other, "--format", "json", "--split", "select")
    status, out, err = run(capsys, *arguments)
    assert (status, err) == (0, "")
    data = json.loads(out)
    assert data["split"] == "select"
    assert [entry["label"] for entry in data["entries"]] == [results, str(other)]
    assert data["differences"][0]["overall"]["difference"] == 0


def test_a_comparison_is_written_as_a_page_instead(results, tmp_path, capsys):
    page = tmp_path / "new" / "page.html"
    status, out, err = run(capsys, "compare", results, results, "--html", page)
    assert (status, out, err) == (0, "", "")
    assert "Campaigns compared" in page.read_text()


def test_what_is_not_comparable_is_compared_only_if_asked(results, tmp_path, capsys):
    other = write_results(tmp_path / "other", prompts="beef")
    status, out, err = run(capsys, "compare", results, other)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert (
        f'the hash of the prompts of task "{TASK}" is a0ff in {results} and beef in {other}' in err
    )
    assert "--anyway" in err
    status, out, err = run(capsys, "compare", results, other, "--anyway", "--format", "json")
    assert (status, err) == (0, "")
    assert len(json.loads(out)["faults"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "DIR", "--trials", "--split", "search"], "--split: trials are scored on"),
        (["report", "DIR", "--trial", "0", "--split", "search"], "--split: trials are scored on"),
        (["report", "DIR", "--trials", "--trial", "0"], "--trials for all, or --trial N for one"),
        (["report", "DIR", "--trial", "1"], "--trial: found 1, expected the number of a trial"),
        (["compare", "DIR"], "found 1 leaderboard, expected two or more"),
        (
            ["compare", "DIR", "DIR", "--html", "p.html", "--format", "csv"],
            "--html: a page is no format",
        ),
        (
            ["compare", "DIR", "DIR", "--html", "DIR"],
            "is a folder; expected the name of an HTML file",
        ),
        (["compare", "DIR", "NONE"], "holds no campaign"),
    ],
)
def test_what_cannot_be_shown_is_one_line(arguments, message, results, tmp_path, capsys):
    known = {"DIR": results, "NONE": str(tmp_path)}
    status, out, err = run(capsys, *(known.get(one, one) for one in arguments))
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
