"""What several commands take, and how a list and a terminal are read."""

import io
import sys

import pytest
import typer
from typer.exceptions import TyperException

from evomerge.cli.options import (
    DisplayOption,
    FormatOption,
    TrialsOption,
    WorkersOption,
    in_color,
    names,
)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("a", ["a"]), (" a, b ,c", ["a", "b", "c"]), ("a,,b,", ["a", "b"]), (" , ", []), ("", [])],
)
def test_a_list_of_names(text, wanted):
    assert names(text) == wanted


@pytest.mark.parametrize(
    ("terminal", "no_color", "wanted"),
    [(True, None, True), (True, "", True), (True, "1", False), (False, None, False)],
)
def test_colours_are_for_terminals_whose_user_wants_them(monkeypatch, terminal, no_color, wanted):
    """As https://no-color.org has it: set and not empty."""
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    assert in_color() is wanted


@pytest.fixture
def read():
    """Read a command line of the options; return what the command was given."""
    found = []
    app = typer.Typer(add_completion=False)

    @app.command()
    def command(
        format_: FormatOption = "table",
        display: DisplayOption = "auto",
        trials: TrialsOption = None,
        workers: WorkersOption = None,
    ) -> None:
        found.append((format_, display, trials, workers))

    def read(*arguments):
        typer.main.get_command(app).main(list(arguments), standalone_mode=False)
        return found.pop()

    return read


def test_the_options_and_what_they_are_when_left_out(read):
    assert read() == ("table", "auto", None, None)
    given = read("--format", "csv", "--display", "none", "--trials", "1", "--workers", "0")
    assert given == ("csv", "none", 1, 0)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--display", "loud", "'auto', 'rich', 'plain', 'json', 'none'"),
        ("--trials", "0", "greater than or equal to 1"),
        ("--workers", "-1", "greater than or equal to 0"),
    ],
)
def test_what_is_out_of_range_is_refused_by_the_options_name(read, option, value, message):
    with pytest.raises(TyperException) as caught:
        read(option, value)
    shown = caught.value.format_message()
    assert f"'{option}'" in shown
    assert message in shown
