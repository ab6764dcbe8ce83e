from pathlib import Path
from types import SimpleNamespace

from benchmarks import search_spaces


def test_those_of_the_zoo_are_found():
    found = search_spaces.names()
    assert {"quickstart", "routed_ensemble", "all_kinds", "pareto_front"} <= set(found)
    assert not {"seven_billion", "smollm2"} & set(found)


def test_reports_and_a_picture_are_kept(tmp_path, store, monkeypatch):
    folder = Path(store.folder)
    (folder / "leaderboard.md").write_text("# board")
    (folder / "leaderboard.json").write_text("{}")
    monkeypatch.setattr(search_spaces, "write_image", lambda _, path, name: path.write_text(name))
    search_spaces.keep("one", SimpleNamespace(folder=folder), tmp_path / "reports")
    kept = {path.name: path.read_text() for path in (tmp_path / "reports").iterdir()}
    assert kept == {"one.md": "# board", "one.json": "{}", "one.svg": "history"}
