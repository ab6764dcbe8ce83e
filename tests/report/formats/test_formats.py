"""What holds of every format, and a format from outside the package."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from evomerge.cli import run_command
from evomerge.errors import UserError
from evomerge.report.comparison import compare_folders
from evomerge.report.formats import FORMATS, Format, render, write
from evomerge.report.leaderboard import Leaderboard
from evomerge.report.trials import trials_report
from evomerge.store import Store
from evomerge.testing.formats import FormatSuite

MINE = '''
"""Winners in capitals: a format of a user's own."""

from evomerge.report.formats import FORMATS
from evomerge.report.leaderboard import Leaderboard
from evomerge.report.grid import Report


def write(report: Report, *, width=None, color=False) -> str:
    board = report.source
    rows = board.winners if isinstance(board, Leaderboard) else ()
    return "".join(f"{row.name.upper()}\\n" for row in rows) or report.grids[0].title + "\\n"


FORMATS["mine"] = write
'''


def test_a_format_is_a_file_and_a_line(
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(MINE, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("mine", file)
    assert spec is not None
    assert spec.loader is not None
    before = dict(FORMATS)
    try:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
        folder = str(store.folder)
        assert run_command(["report", folder, "--format", "mine"]) == 0
        assert capsys.readouterr().out == "TRIAL 1\n"
        assert run_command(["compare", folder, folder, "--format", "mine"]) == 0
        assert capsys.readouterr().out == "2 campaigns: holdout items\n"
    finally:
        FORMATS.clear()
        FORMATS.update(before)
    assert run_command(["report", folder, "--format", "mine"]) == 2
    assert '--format: unknown format "mine"' in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_format_writes_every_report(name: str, store: Store, board: Leaderboard) -> None:
    folders = [Path(store.folder)] * 2
    for text in (
        render(board, name),
        compare_folders(folders, name),
        write(trials_report(store), name),
    ):
        assert text.endswith("\n")
        assert "trial 1" in text or "task_arithmetic" in text


def test_the_help_lists_the_formats(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["report", "--help"]) == 0
    assert f"--format {'|'.join(FORMATS)}" in capsys.readouterr().out


def test_json_holds_all_splits(board: Leaderboard) -> None:
    data = json.loads(render(board, "json", "search"))
    assert list(data) == ["schema", "campaign", "rows", "tests", "constraints", "failures"]
    assert set(data["rows"][0]["splits"]) == {"search", "select", "holdout"}
    assert data == board.to_json()


def test_the_table_is_the_default(board: Leaderboard) -> None:
    text = render(board, width=100)
    assert text.startswith("small: holdout items")
    assert "trial 1 (winner)" in text
    assert render(board, split="select", width=100).startswith("small: select items")


@pytest.mark.parametrize(("kind", "split"), [("tabel", None), ("table", "holdot")])
def test_unknown_words_are_refused_with_the_nearest(
    board: Leaderboard, kind: str, split: str | None
) -> None:
    with pytest.raises(UserError, match=r'did you mean "(table|holdout)"\?'):
        render(board, kind, split)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(FORMATS))
class TestFormats(FormatSuite):
    @pytest.fixture
    def format(self, name: str) -> Format:
        return FORMATS[name]
