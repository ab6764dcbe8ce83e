from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from evomerge.errors import EvomergeError, ResultsError
from evomerge.store.folder import FolderLock, clear, keep_tasks, refuse_existing, write_whole


def test_a_new_folder_is_welcome(tmp_path: Path) -> None:
    refuse_existing(tmp_path / "new", force=False)
    refuse_existing(tmp_path, force=False)


def test_a_results_folder_is_refused_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "study.db").touch()
    with pytest.raises(ResultsError, match=r"evomerge resume .*another --out, or .*--force"):
        refuse_existing(tmp_path, force=False)
    refuse_existing(tmp_path, force=True)


@pytest.mark.parametrize("force", [True, False])
def test_someone_elses_folder_is_refused_always(tmp_path: Path, force: bool) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ResultsError, match="choose another --out"):
        refuse_existing(tmp_path, force=force)


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResultsError, match="is a file"):
        refuse_existing(tmp_path / "file", force=True)


def test_what_a_killed_create_left_is_no_obstacle(tmp_path: Path) -> None:
    for name in (
        ".lock",
        "campaign.yaml",
        ".study.db.new",
        ".study.db.new-wal",
        ".study.db.new-journal",
    ):
        (tmp_path / name).touch()
    refuse_existing(tmp_path, force=False)


def test_a_users_own_campaign_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "campaign.yaml").write_text("# mine")
    with pytest.raises(ResultsError, match="choose another --out, or replace it with --force"):
        refuse_existing(tmp_path, force=False)


def test_clear_removes_what_is_ours_only(tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    for name in ("study.db", "study.db-wal", "leaderboard.md", "best/model", "notes.txt"):
        (tmp_path / name).touch()
    clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_second_writer_is_told_who_is_first(
    tmp_path: Path, in_child: Callable[[Callable[[], object]], int]
) -> None:
    lock = FolderLock(tmp_path)

    def second() -> None:
        with pytest.raises(ResultsError) as refused:
            FolderLock(tmp_path)
        assert f"host {socket.gethostname()}, process {os.getppid()}" in str(refused.value)

    assert in_child(second) == 0
    lock.release()
    lock.release()
    assert in_child(lambda: FolderLock(tmp_path)) == 0  # dies without letting go
    FolderLock(tmp_path).release()


def test_a_file_is_whole_or_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "a", "first")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EvomergeError, match="a: cannot be written: No space left on device"):
        write_whole(tmp_path / "a", "second")
    assert (tmp_path / "a").read_text() == "first"


def test_a_kept_leaderboard_without_its_study_is_replaced_only_by_force(tmp_path: Path) -> None:
    (tmp_path / "leaderboard.md").write_text("kept")
    with pytest.raises(ResultsError, match=r"without its study.*--out.*--force"):
        refuse_existing(tmp_path, force=False)
    refuse_existing(tmp_path, force=True)


@pytest.mark.parametrize("left", ["front.json", ".leaderboard.json.new", ".best.x1y2", "best"])
def test_what_a_campaign_writes_is_its_own(tmp_path: Path, left: str) -> None:
    """Left without a study it is taken for a campaign's; replaced by --force it is gone."""
    folder = tmp_path / "out"
    folder.mkdir()
    if "best" in left:
        (folder / left).mkdir()
    else:
        (folder / left).write_text("{}")
    with pytest.raises(ResultsError, match="what is left of a campaign"):
        refuse_existing(folder, force=False)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ResultsError, match="do not belong to a campaign"):
        refuse_existing(folder, force=True)
    (folder / "study.db").write_text("")
    refuse_existing(folder, force=True)
    clear(folder)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_tasks_with_answers_are_kept_and_told_from_a_users(tmp_path: Path) -> None:
    source, folder, other = tmp_path / "source", tmp_path / "results", tmp_path / "other"
    source.mkdir()
    for name in ("a.yaml", "teacher_task.py", "a.parquet"):
        (source / name).write_text(name)
    (source / "__pycache__").mkdir()
    folder.mkdir()
    keep_tasks(source, folder)
    kept = {path.name: path.read_text() for path in (folder / "tasks").iterdir()}
    assert kept == {name: name for name in ("a.yaml", "teacher_task.py", "a.parquet")}
    refuse_existing(folder, force=False)  # what a killed create left
    clear(folder)
    assert not (folder / "tasks").exists()
    (other / "tasks").mkdir(parents=True)
    (other / "tasks" / "mine.yaml").touch()
    clear(other)
    assert (other / "tasks" / "mine.yaml").exists()
    with pytest.raises(ResultsError, match="choose another --out"):
        refuse_existing(other, force=True)
