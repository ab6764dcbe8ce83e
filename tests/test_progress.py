import io
import json

import pytest

from evomerge import progress
from evomerge.progress import (
    JsonDisplay,
    Pace,
    PlainDisplay,
    Progress,
    counted,
    describe,
    open_display,
)


class Recorder:
    def __init__(self):
        self.shown = []

    def show(self, one):
        self.shown.append(one)


def test_a_line_says_best_done_failed_pace_and_time_left():
    line = describe(Progress("search", 3, 10, 1, 0.5, 6.0, 70.0))
    assert line == "search: 3 of 10, best 0.5000, 1 failed, 6.0 a minute, 1 min 10 s left"


def test_plain_lines_come_now_and_then_and_at_the_ends():
    now, stream = [0.0], io.StringIO()
    display = PlainDisplay(stream, clock=lambda: now[0])
    for done in range(6):
        now[0] += progress.SECONDS_BETWEEN_LINES / 2.5
        display.show(Progress("search", done, 5))
    counts = [line.split()[1] for line in stream.getvalue().splitlines()]
    assert counts == ["0", "3", "5"]


def test_json_shows_every_step_as_an_object():
    stream = io.StringIO()
    display = JsonDisplay(stream)
    display.show(Progress("search", 1, 2))
    display.say("hello")
    display.event("trial", number=3, value=0.5, seconds=1.5)
    first, second, third = map(json.loads, stream.getvalue().splitlines())
    assert (first["event"], first["stage"], first["done"]) == ("progress", "search", 1)
    assert second == {"event": "message", "message": "hello"}
    assert third == {"event": "trial", "number": 3, "value": 0.5, "seconds": 1.5}


def test_pace_counts_failures_and_estimates_the_time_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    recorder = Recorder()
    pace = Pace(recorder, "search", total=10, done=4, failed=1)
    now[0] += 30.0
    pace.step(failed=True, best=0.25)
    last = recorder.shown[-1]
    assert (last.done, last.failed, last.best) == (5, 2, 0.25)
    assert last.per_minute == pytest.approx(2.0)  # the four of an earlier run do not count
    assert last.seconds_left == pytest.approx(150.0)


def test_pace_may_be_told_how_far_it_is(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    recorder = Recorder()
    pace = Pace(recorder, "search", total=10, done=4)
    now[0] += 60.0
    pace.reach(7, 2, 0.5)
    last = recorder.shown[-1]
    assert (last.done, last.failed, last.best, last.per_minute) == (7, 2, 0.5, pytest.approx(3.0))


@pytest.mark.parametrize(("seconds", "shown"), [(1.0, [3, 4, 5]), (0.1, [5])])
def test_what_is_counted_is_shown_after_some_seconds_and_at_the_end(seconds, shown, monkeypatch):
    now, recorder = [100.0], Recorder()
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def items():
        for item in "abcde":
            now[0] += seconds
            yield item

    assert list(counted(items(), recorder, "merge", 5)) == list("abcde")
    assert [(one.done, one.total) for one in recorder.shown] == [(done, 5) for done in shown]
    assert recorder.shown[-1].per_minute == pytest.approx(60 / seconds)


def test_without_a_limit_there_is_no_time_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    recorder = Recorder()
    pace = Pace(recorder, "search", total=None)
    now[0] += 60.0
    pace.reach(7, 0, 0.5)
    assert describe(recorder.shown[-1]) == "search: 7, best 0.5000, 7.0 a minute"
    PlainDisplay(io.StringIO()).show(recorder.shown[-1])


def test_without_a_terminal_auto_is_plain():
    assert isinstance(open_display("auto", io.StringIO()), PlainDisplay)
    assert not isinstance(open_display("none"), PlainDisplay)


def test_the_rich_display_opens_and_closes():
    display = open_display("rich")
    display.show(Progress("search", 1, 2))
    display.say("[not markup]")
    display.close()
