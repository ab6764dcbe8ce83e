"""Progress of long work, in one of four styles: rich, plain, json, none.

A display only shows what it is told. Without a terminal, `auto` is plain lines now and then.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Literal, Protocol, TextIO, TypeVar

Style = Literal["auto", "rich", "plain", "json", "none"]
SECONDS_BETWEEN_LINES = 10.0
QUIET = 3.0
"""Seconds in which `counted` shows nothing: bad input that is found by then is told of in one line."""
Item = TypeVar("Item")


@dataclass(frozen=True)
class Progress:
    """Where the work stands.

    Attributes:
        stage: What is done now: `parents and baselines`, `search`, `select`, `holdout`, `save`.
        done: Units finished in this stage, failures among them.
        total: Units of this stage; None: no number was set.
        failed: Units that failed.
        best: Best objective value so far (search), or None.
        per_minute: Units finished a minute since this stage began, in this run.
        seconds_left: Estimate for this stage; None before there is one.
    """

    stage: str
    done: int
    total: int | None
    failed: int = 0
    best: float | None = None
    per_minute: float = 0.0
    seconds_left: float | None = None


class Display(Protocol):
    """Shows progress and messages."""

    def show(self, progress: Progress) -> None:
        """Show where the work stands."""

    def say(self, message: str) -> None:
        """Show one line that stays."""

    def event(self, name: str, /, **fields: object) -> None:
        """Tell programs that read along of one thing that happened: `trial` or `result`."""

    def close(self) -> None:
        """Leave the terminal as it was found."""


class Pace:
    """Counts one stage and shows it, perhaps from some seconds on: done, failed, a minute, time left."""

    def __init__(
        self,
        display: Display,
        stage: str,
        total: int | None,
        done: int = 0,
        failed: int = 0,
        quiet: float = 0.0,
    ) -> None:
        self._display, self._stage, self._total, self._quiet = display, stage, total, quiet
        self._done, self._failed, self._before = done, failed, done
        self._start = time.monotonic()
        self._show(None)

    def step(self, *, failed: bool = False, best: float | None = None) -> None:
        """Count one finished unit."""
        self._done += 1
        self._failed += failed
        self._show(best)

    def reach(self, done: int, failed: int, best: float | None) -> None:
        """Say how much is finished by now."""
        self._done, self._failed = done, failed
        self._show(best)

    def _show(self, best: float | None) -> None:
        seconds = time.monotonic() - self._start
        if seconds < self._quiet and self._done != self._total:
            return
        minutes = seconds / 60
        here = self._done - self._before
        rate = here / minutes if here and minutes > 0 else 0.0
        left = None
        if rate and self._total is not None:
            left = 60 * (self._total - self._done) / rate
        self._display.show(
            Progress(self._stage, self._done, self._total, self._failed, best, rate, left)
        )


def counted(
    items: Iterable[Item], display: Display, stage: str, total: int | None = None
) -> Iterator[Item]:
    """Show how many of these items are there by now; nothing in the first seconds, unless all are."""
    pace = Pace(display, stage, total, quiet=QUIET)
    for item in items:
        pace.step()
        yield item


class NoDisplay:
    """Shows nothing."""

    def show(self, progress: Progress) -> None:
        """Ignore it."""

    def say(self, message: str) -> None:
        """Ignore it."""

    def event(self, name: str, /, **fields: object) -> None:
        """Ignore it."""

    def close(self) -> None:
        """Nothing is open."""


class PlainDisplay:
    """A line at the start and the end of a stage, and every few seconds between."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._stage, self._last = "", 0.0

    def show(self, progress: Progress) -> None:
        """Print a line if one is due."""
        now = self._clock()
        due = now - self._last >= SECONDS_BETWEEN_LINES
        is_last = progress.total is not None and progress.done >= progress.total
        if progress.stage != self._stage or is_last or due:
            self._stage, self._last = progress.stage, now
            self.say(describe(progress))

    def say(self, message: str) -> None:
        """Print one line."""
        print(message, file=self._stream, flush=True)

    def event(self, name: str, /, **fields: object) -> None:
        """Ignore it; people read the progress."""

    def close(self) -> None:
        """Nothing is open."""


class JsonDisplay(PlainDisplay):
    """One JSON object a line: `progress` for every step, `message`, `trial` for each trial, `result`."""

    def show(self, progress: Progress) -> None:
        """Print the progress."""
        self.event("progress", **asdict(progress))

    def say(self, message: str) -> None:
        """Print the message."""
        self.event("message", message=message)

    def event(self, name: str, /, **fields: object) -> None:
        """Print the event."""
        print(json.dumps({"event": name, **fields}), file=self._stream, flush=True)


class RichDisplay:
    """A live bar at the bottom of the terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bars

        self._console = Console(stderr=True)
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rest]}"),
            console=self._console,
        )
        self._task = self._bars.add_task("", total=1, rest="")
        self._bars.start()

    def show(self, progress: Progress) -> None:
        """Move the bar."""
        self._bars.update(
            self._task,
            description=progress.stage,
            completed=progress.done,
            total=progress.total,
            rest=", ".join(_facts(progress)),
        )

    def say(self, message: str) -> None:
        """Print above the bar."""
        self._console.print(message, markup=False, highlight=False)

    def event(self, name: str, /, **fields: object) -> None:
        """Ignore it; people read the progress."""

    def close(self) -> None:
        """Stop the live bar."""
        self._bars.stop()


def open_display(style: Style = "auto", stream: TextIO | None = None) -> Display:
    """Return a display of this style.

    Args:
        style: `auto` is rich on a terminal and plain elsewhere.
        stream: Where plain and JSON lines go; stderr by default, so that results stay alone on stdout.
    """
    stream = stream or sys.stderr
    if style == "auto":
        style = "rich" if stream.isatty() else "plain"
    if style == "none":
        return NoDisplay()
    if style == "json":
        return JsonDisplay(stream)
    return RichDisplay() if style == "rich" else PlainDisplay(stream)


@contextmanager
def shown_by(display: Display | Style) -> Iterator[Display]:
    """Open a display of a style, and close it; leave one that was given as it is."""
    if not isinstance(display, str):
        yield display
        return
    opened = open_display(display)
    try:
        yield opened
    finally:
        opened.close()


def describe(progress: Progress) -> str:
    """Return one line for a progress."""
    of = "" if progress.total is None else f" of {progress.total}"
    return ", ".join([f"{progress.stage}: {progress.done}{of}", *_facts(progress)])


def _facts(progress: Progress) -> list[str]:
    facts = [] if progress.best is None else [f"best {progress.best:.4f}"]
    if progress.failed:
        facts.append(f"{progress.failed} failed")
    if progress.per_minute:
        facts.append(f"{progress.per_minute:.1f} a minute")
    is_last = progress.total is not None and progress.done >= progress.total
    if progress.seconds_left is not None and not is_last:
        minutes, seconds = divmod(round(progress.seconds_left), 60)
        facts.append(f"{minutes} min {seconds:02d} s left" if minutes else f"{seconds} s left")
    return facts
