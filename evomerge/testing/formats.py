"""What holds for every report format."""

from __future__ import annotations

import pytest

from evomerge.report.formats import Format
from evomerge.report.grid import Cell, Grid, Line, Report

STEERING = "\x1b[31m"
"""What would turn a terminal red."""


class FormatSuite:
    """Tests of a format. Override `format`; `report` where the format needs its source."""

    @pytest.fixture
    def format(self) -> Format:
        """Return the function under test."""
        pytest.fail("override the fixture `format`")

    @pytest.fixture
    def report(self) -> Report:
        """Return what it writes: one grid, with a name that would steer a terminal."""
        name = f"<b>one</b>\n|{STEERING}"
        cells = (Cell("0.750", "[0.700, 0.800]", "±.050", best=True), Cell())
        lines = (Line(name, "expert", cells), Line("two", "winner", cells[::-1]))
        grid = Grid("a title", ("", "task", "other"), lines, ("a note",))
        return Report((grid,), [{"name": name, "task": 0.75}, {"name": "two"}], {"rows": [name]})

    def test_it_is_text_that_ends_its_last_line(self, format: Format, report: Report) -> None:
        assert format(report, width=80, color=False).endswith("\n")

    def test_it_is_a_function_of_the_report(self, format: Format, report: Report) -> None:
        assert format(report, width=80, color=False) == format(report, width=80, color=False)

    def test_text_from_outside_cannot_steer_a_terminal(
        self, format: Format, report: Report
    ) -> None:
        assert STEERING not in format(report, width=80, color=False)

    def test_a_report_without_lines_is_written(self, format: Format) -> None:
        empty = Report((Grid("nothing yet", ("",), ()),), [], {})
        assert isinstance(format(empty, width=None, color=False), str)
