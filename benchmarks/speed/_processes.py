"""Commands with all the processes they start: what they print and when, their processor time, their end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

SECONDS_TO_END = 20.0
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Line:
    """A line of output, and when it came.

    Attributes:
        seconds: Since the process began.
        text: Without its end.
    """

    seconds: float
    text: str


class Command:
    """A process with all that it starts, in a session of its own.

    A session, for Ray gives its workers groups of their own; they leave the session only with `setsid`.

    Args:
        command: What to run.
        environment: Variables beside this process's own; None removes one.
        folder: Where to run it.
        log: Gets the output, which `lines` yields too; a command without `lines` only writes it.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        environment: Mapping[str, str | None],
        log: IO[str],
        folder: Path | None = None,
        read: bool = True,
    ) -> None:
        variables = {**os.environ, **{k: v for k, v in environment.items() if v is not None}}
        for name, value in environment.items():
            if value is None:
                variables.pop(name, None)
        self._log = log
        self.start = time.monotonic()
        self.process = subprocess.Popen(
            [str(part) for part in command],
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if read else log,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )

    def lines(self) -> Iterator[Line]:
        """Yield each line as it comes, until the output ends."""
        if self.process.stdout is None:
            raise ValueError("the output goes to the log only")
        for text in self.process.stdout:
            line = Line(time.monotonic() - self.start, text.rstrip("\n"))
            self._log.write(f"{line.seconds:9.2f} {line.text}\n")
            self._log.flush()
            yield line

    def cpu_seconds(self) -> float:
        """Return the processor time of all processes that are in the session now."""
        return sum(process.seconds for process in self._members())

    def end(self) -> None:
        """End every process of the session: asked first, then killed. Nothing else is touched."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + SECONDS_TO_END
            while self._signal(number) and time.monotonic() < deadline:
                self.process.poll()  # a dead child still counts as a member until it is waited for
                time.sleep(0.2)
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def _signal(self, number: signal.Signals) -> bool:
        """Return whether there was a process left to signal."""
        members = list(self._members())
        for member in members:
            with suppress(ProcessLookupError):  # it ended meanwhile
                os.kill(member.id, number)
        return bool(members)

    def _members(self) -> Iterator[_Process]:
        for path in Path("/proc").iterdir():
            found = _process(path) if path.name.isdigit() else None
            if found is not None and found.session == self.process.pid and found.state != "Z":
                yield found


@contextmanager
def running(
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str | None],
    log: Path,
    folder: Path | None = None,
    read: bool = True,
) -> Iterator[Command]:
    """Run a command in a session of its own, which ends with the block, whatever happens.

    Args:
        command: What to run.
        environment: Variables beside this process's own; None removes one.
        log: A file that gets the output.
        folder: Where to run it.
        read: Whether `lines` will be read; otherwise the output goes to the log only.
    """
    with log.open("w", encoding="utf-8") as stream:
        running_command = Command(
            command, environment=environment, log=stream, folder=folder, read=read
        )
        try:
            yield running_command
        finally:
            running_command.end()


def end_on_sigterm() -> None:
    """Let SIGTERM unwind this process, so that `running` ends what it started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def cpu_seconds_of(process: int) -> float:
    """Return the processor time that one process took so far; 0 if it is gone."""
    found = _process(Path("/proc") / str(process))
    return 0.0 if found is None else found.seconds


@dataclass(frozen=True)
class _Process:
    id: int
    state: str
    session: int
    seconds: float


def _process(path: Path) -> _Process | None:
    try:
        text = (path / "stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None  # it ended meanwhile
    fields = text.rpartition(")")[2].split()  # the name before may hold blanks
    seconds = (int(fields[11]) + int(fields[12])) / TICKS
    return _Process(int(path.name), fields[0], int(fields[3]), seconds)
