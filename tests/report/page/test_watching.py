"""The page on disk: whole or as it was, and following a study that another process writes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evomerge import cli
from evomerge.candidate.trial import Job
from evomerge.report.page import watching
from evomerge.store import Store
from tests.report.page.studies import TASKS, scored, write_study

Run = tuple[int, str, str]


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> Run:
    status = cli.run_command([str(one) for one in arguments])
    return status, *capsys.readouterr()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("finished") / "out")


def test_a_page_is_written_also_into_a_new_folder(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new" / "page.html"
    assert run(capsys, "report", finished, "--html", file) == (0, f"wrote {file}\n", "")
    text = file.read_text()
    assert text.startswith("<!doctype html>")
    assert 'data-refresh="0"' in text
    assert [path.name for path in file.parent.iterdir()] == ["page.html"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["DIR", "--html", "FILE", "--trials"],
            "--html: a page holds all; leave other options out",
        ),
        (["DIR", "--html", "FILE", "--format", "json"], "--html: a page holds all"),
        (["DIR", "--html", "FILE", "--split", "search"], "--html: a page holds all"),
        (["DIR", "--watch"], "--watch: found without a page to write; add --html FILE"),
        (["DIR", "--html", "."], ".: is a folder; expected the name of an HTML file"),
        (["DIR", "--html", "DIR/study.db/page.html"], "cannot be written: "),
        (["nowhere", "--html", "FILE"], "nowhere: no such folder"),
        (["nowhere", "--html", "FILE", "--watch"], "nowhere: no such folder"),
    ],
)
def test_bad_input_is_one_line(
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    file = str(tmp_path / "page.html")
    given = [one.replace("DIR", str(finished)).replace("FILE", file) for one in arguments]
    status, _, err = run(capsys, "report", *given)
    assert status == 2
    assert err.count("\n") == 1
    assert message in err
    assert not Path(file).exists()


def test_watching_a_finished_study_ends_at_once(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "page.html"
    status, out, _ = run(capsys, "report", finished, "--html", file, "--watch")
    assert (status, out.splitlines()[-1]) == (0, f"wrote {file}")
    assert 'data-refresh="0"' in file.read_text()


def test_a_page_follows_a_study_until_it_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "SECONDS", 0.01)
    folder, file = write_study(tmp_path / "out", until="search"), tmp_path / "page.html"
    states: list[str] = []

    def write_report(folder: Path, file: Path, *, refresh: bool = False) -> bool:
        found = real(folder, file, refresh=refresh)
        states.append(file.read_text())
        if len(states) == 1:
            with Store.open(folder, write=True) as store:  # the driver goes on
                entry = store.trials()[1].entry
                store.record(Job(entry, "select"), scored(TASKS, "select", 30, 0.9, "1"))
                store.choose(entry, "the only finalist")
        elif not found:
            with Store.open(folder, write=True) as store:
                store.finish()
        return found

    real = watching.write_report
    monkeypatch.setattr(watching, "write_report", write_report)
    watching.follow_report(folder, file)
    assert "No winner yet" in states[0]
    assert 'data-refresh="10"' in states[0]
    assert "Not tested yet: trial 1 was chosen" in states[1]
    assert 'data-refresh="0"' in states[-1]
    assert "not finished" not in states[-1]


def heed_ctrl_c() -> None:
    """A test run in the background ignores Ctrl-C, and its children would inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_leaves_a_page_that_no_longer_reloads_itself(tmp_path: Path) -> None:
    folder, file = write_study(tmp_path / "out", until="search"), tmp_path / "page.html"
    command = [sys.executable, "-m", "evomerge", "report", folder, "--html", file, "--watch"]
    watcher = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # ignored in the background
    )
    end = time.monotonic() + 60
    while not file.exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert 'data-refresh="10"' in file.read_text()
    watcher.send_signal(signal.SIGINT)
    _, err = watcher.communicate(timeout=60)
    assert (watcher.returncode, err.count("\n")) == (130, 1)
    assert 'data-refresh="0"' in file.read_text()
