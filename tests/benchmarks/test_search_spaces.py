from pathlib import Path
from types import SimpleNamespace

from benchmarks import search_spaces


def test_those_of_the_zoo_are_found():
    found = search_spaces.names()
    assert {"quickstart", "routed_ensemble", "all_kinds", "pareto_front"} <= set(found)
    assert not {"seven_billion", "smollm2"} & set(found)


def test_reports_and_a_picture_are_kept(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "leaderboard.md").write_text("# board")
    (folder / "leaderboard.json").write_text("{}")
    drawn = SimpleNamespace(write_image=lambda path: Path(path).write_text("<svg/>"))
    result = SimpleNamespace(folder=folder, plot_history=lambda: drawn)
    search_spaces.keep("one", result, tmp_path / "reports")
    kept = {path.name: path.read_text() for path in (tmp_path / "reports").iterdir()}
    assert kept == {"one.md": "# board", "one.json": "{}", "one.svg": "<svg/>"}
