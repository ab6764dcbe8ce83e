"""What the benchmark takes for wrong; the campaign, and the file system that takes root, are played."""

import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.faults import _campaign, disk

Filled = Callable[..., list[str]]
FULL = "evomerge: study.db: the disk is full; what was finished is kept\n"


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Filled:
    """Fill a disk on which a campaign behaves as told; return what was wrong."""
    monkeypatch.setattr(disk, "DISK", 2**20)
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: None)
    monkeypatch.setattr(_campaign, "write", lambda folder, **settings: folder / "campaign.yaml")
    monkeypatch.setattr(_campaign, "told", lambda out: {})

    def filled(
        statuses: tuple[int, int] = (1, 0),
        says: str = FULL,
        *,
        sound: bool = True,
        unlike: tuple[str, ...] = (),
    ) -> list[str]:
        commands: list[list[str]] = []

        def start(command: list[str], log: Path) -> int:
            out = tmp_path / "disk-3" / "disk" / "out"
            if not commands:
                out.mkdir()
                with closing(sqlite3.connect(out / "study.db")) as connection:
                    connection.execute("CREATE TABLE trials (number INTEGER PRIMARY KEY, t TEXT)")
                    connection.executemany(
                        "INSERT INTO trials (t) VALUES (?)", [("x" * 3000,)] * 20
                    )
                    connection.commit()
                if not sound:
                    pages = bytearray((out / "study.db").read_bytes())
                    pages[2 * 4096 : 4 * 4096] = b"\xff" * 8192
                    (out / "study.db").write_bytes(pages)
            commands.append(command)
            log.with_suffix(".output").write_text(says)
            return len(commands) - 1

        monkeypatch.setattr(_campaign, "start", start)
        monkeypatch.setattr(_campaign, "wait", lambda started: statuses[started])
        monkeypatch.setattr(disk, "compared", lambda whole, other: list(unlike))
        found = disk.filled(tmp_path, 3, 2**19, "cmaes")
        assert [command[0] for command in commands] == ["search", "resume"]
        return list(found["wrong"])  # type: ignore[call-overload]

    return filled


def test_one_line_status_1_a_sound_database_and_the_same_end_are_right(filled: Filled) -> None:
    assert filled() == []


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"statuses": (0, 0)}, "exit status 0"),
        ({"says": "Traceback\n" + FULL}, "says: Traceback"),
        ({"says": FULL + "and more\n"}, "says: evomerge: study.db"),
        ({"statuses": (1, 2)}, "resume: evomerge"),
        ({"unlike": ("out: another winner",)}, "out: another winner"),
    ],
)
def test_anything_else_is_wrong(filled: Filled, changes: dict[str, object], wrong: str) -> None:
    (found,) = filled(**changes)
    assert found.startswith(wrong)


def test_a_damaged_database_is_wrong(filled: Filled) -> None:
    (found,) = filled(sound=False)
    assert "malformed" in found
