import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.speed._processes import cpu_seconds_of, running

FAMILY = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], process_group=0)
print(child.pid, flush=True)
end = time.process_time() + 0.3
while time.process_time() < end: pass
print("worked", flush=True)
time.sleep(600)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("here", flush=True)
time.sleep(600)
"""


DRIVER = """
import sys
from pathlib import Path
from benchmarks.speed._processes import end_on_sigterm, running
end_on_sigterm()
sleeper = [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)"]
with running(sleeper, environment={}, log=Path(sys.argv[1])) as command:
    for line in command.lines():
        print(line.text, flush=True)
"""


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_children_in_groups_of_their_own_end_too(tmp_path: Path) -> None:
    with running([sys.executable, "-c", FAMILY], environment={}, log=tmp_path / "log") as command:
        lines = command.lines()
        child = int(next(lines).text)
        assert next(lines).text == "worked"
        assert alive(child)
        assert 0.3 <= command.cpu_seconds() < 5
        assert cpu_seconds_of(command.process.pid) >= 0.3
    assert not alive(child)
    assert command.process.returncode is not None
    assert cpu_seconds_of(command.process.pid) == 0


def test_lines_carry_their_time_and_reach_the_log(tmp_path: Path) -> None:
    code = "import time; print('a', flush=True); time.sleep(0.5); print('b')"
    with running([sys.executable, "-c", code], environment={}, log=tmp_path / "log") as command:
        first, second = command.lines()
    assert (first.text, second.text) == ("a", "b")
    assert second.seconds - first.seconds == pytest.approx(0.5, abs=0.4)
    assert [line.split()[-1] for line in (tmp_path / "log").read_text().splitlines()] == ["a", "b"]


def test_an_environment_is_added_to_and_taken_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere")
    code = "import os; print(os.environ.get('RAY_ADDRESS'), os.environ['ADDED'])"
    changes = {"RAY_ADDRESS": None, "ADDED": "1"}
    with running(
        [sys.executable, "-c", code], environment=changes, log=tmp_path / "log"
    ) as command:
        assert [line.text for line in command.lines()] == ["None 1"]
    assert os.environ["RAY_ADDRESS"] == "elsewhere"


def test_who_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.speed._processes.SECONDS_TO_END", 0.5)
    start = time.monotonic()
    with running([sys.executable, "-c", STUBBORN], environment={}, log=tmp_path / "log") as command:
        next(command.lines())
    assert not alive(command.process.pid)
    assert time.monotonic() - start < 30


def test_output_that_nobody_reads_goes_to_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running(
        [sys.executable, "-c", "print('x')"], environment={}, log=log, read=False
    ) as command:
        command.process.wait()
        with pytest.raises(ValueError, match="log only"):
            next(command.lines())
    assert log.read_text() == "x\n"


def test_a_driver_that_is_told_to_end_ends_what_it_started(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, tmp_path / "log"],
        cwd=root,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as driver:
        assert driver.stdout is not None
        sleeper = int(driver.stdout.readline())
        assert alive(sleeper)
        driver.terminate()
        assert driver.wait(60) == 128 + signal.SIGTERM
    assert not alive(sleeper)
