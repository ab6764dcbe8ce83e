from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from evomerge.workers import scratch
from evomerge.workers.scratch import OWNER, ScratchFolder, in_memory


def killed(code: str) -> None:
    """Run Python code that uses scratch folders and then kills its own process."""
    script = (
        "import os\nfrom pathlib import Path\nfrom evomerge.workers import scratch\n"
        f"{code}\nos.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9


def test_folders_of_dead_processes_are_removed_and_no_others(tmp_path: Path) -> None:
    killed(
        f"folder = scratch.ScratchFolder(Path({str(tmp_path)!r}))\n"
        "(folder.path / 'file').write_text('x')"
    )
    (stale,) = tmp_path.iterdir()
    others = [tmp_path / name for name in ("evomerge-models-0", "evomerge-abc", "notes")]
    for folder in others:
        folder.mkdir()
    link = tmp_path / "evomerge-link"
    link.symlink_to(stale)
    mine = ScratchFolder(tmp_path)
    assert not stale.exists()
    again = ScratchFolder(tmp_path)
    assert set(tmp_path.iterdir()) == {mine.path, again.path, link, *others}
    assert (mine.path / OWNER).exists()
    for folder in (mine, again, again):
        folder.remove()
    assert set(tmp_path.iterdir()) == {link, *others}


def test_folders_of_other_users_are_not_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(f"scratch.ScratchFolder(Path({str(tmp_path)!r}))")
    (stale,) = tmp_path.iterdir()
    uid = os.getuid()

    def denied(self: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(self))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "is_file", denied)
        patched.setattr(scratch.os, "getuid", lambda: uid + 1)
        scratch.remove_stale(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "is_file", denied)  # it may go while it is looked at
        scratch.remove_stale(tmp_path)
    assert stale.exists()
    scratch.remove_stale(tmp_path)
    assert not stale.exists()


def test_a_folder_has_its_name_only_once_it_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    class Watched(scratch.FileLock):
        def acquire(self, *args: object, **options: object) -> object:
            seen.extend(folder.name for folder in tmp_path.glob("evomerge-*"))
            return super().acquire(*args, **options)

    monkeypatch.setattr(scratch, "FileLock", Watched)
    folder = ScratchFolder(tmp_path)
    assert (seen, folder.path.name[:9]) == ([], "evomerge-")
    folder.remove()


def test_a_candidates_folder_is_in_memory_and_vanishes() -> None:
    with in_memory() as folder:
        (folder / "file").write_text("x")
        if Path("/dev/shm").is_dir():
            assert folder.parent == Path("/dev/shm")
    assert not folder.exists()


def test_a_failed_candidates_folder_vanishes_too() -> None:
    candidate = in_memory()
    folder = candidate.__enter__()
    assert not candidate.__exit__(MemoryError, MemoryError(), None)
    assert not folder.exists()


def test_the_next_candidate_removes_what_a_killed_process_left_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(
        f"scratch.SHARED_MEMORY = Path({str(tmp_path)!r})\n"
        "held = scratch.in_memory()\nfolder = held.__enter__()\n"
        "(folder / 'model').mkdir()\n(folder / 'model' / 'weights').write_bytes(bytes(1000))"
    )
    assert [path.name for path in tmp_path.rglob("weights")] == ["weights"]
    monkeypatch.setattr(scratch, "SHARED_MEMORY", tmp_path)
    with in_memory() as folder:
        assert list(tmp_path.iterdir()) == [folder]
    assert not list(tmp_path.iterdir())


def test_without_shared_memory_it_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "SHARED_MEMORY", tmp_path / "none")
    monkeypatch.setattr(scratch.tempfile, "tempdir", str(tmp_path))
    with in_memory() as folder:
        assert folder.parent == tmp_path
