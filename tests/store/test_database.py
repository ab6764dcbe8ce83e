"""Folders that may only be read: what is in them, the write-ahead log included, is reported all the same."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from optuna.distributions import FloatDistribution

from evomerge.candidate.trial import Entry, Job, Outcome
from evomerge.errors import EvomergeError, ResultsError
from evomerge.store import Store, database

NOBODY = 65534
SPACE = {"w": FloatDistribution(0.0, 1.0)}
Make = Callable[..., Entry]
InChild = Callable[[Callable[[], object]], int]


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user may enter, which those of a test are not."""
    folder = Path(tempfile.mkdtemp(prefix="evomerge-test-"))
    folder.chmod(0o755)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    shutil.rmtree(folder)


def fill(store: Store, candidate: Make, scored: Outcome) -> None:
    for number in range(2):
        store.asked(candidate(number), {"w": number / 2}, SPACE)
        store.told(candidate(number), scored, [number / 2])
    store.record(Job(candidate(1), "select"), scored)
    store.choose(candidate(1), "the best")


def copied(store: Store, folder: Path, *suffixes: str) -> Path:
    """Copy a results folder, with some of the files that SQLite has beside the database."""
    folder.mkdir()
    for name in ("campaign.yaml", *(f"study.db{suffix}" for suffix in ("", *suffixes))):
        shutil.copyfile(store.folder / name, folder / name)
        (folder / name).chmod(0o444)
    folder.chmod(0o555)
    return folder


def as_nobody(check: Callable[[], None]) -> Callable[[], None]:
    """Root may write anywhere, so it becomes somebody who may not."""

    def run() -> None:
        if os.getuid() == 0:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        check()

    return run


@pytest.mark.parametrize("suffixes", [("-wal",), ("-wal", "-shm"), ()], ids=str)
def test_a_folder_that_may_only_be_read_is_read(
    store: Store,
    candidate: Make,
    scored: Outcome,
    public: Path,
    in_child: InChild,
    suffixes: tuple[str, ...],
) -> None:
    fill(store, candidate, scored)
    if not suffixes:
        store.close()  # the last connection brings the log into the database
    else:
        assert (store.folder / "study.db-wal").stat().st_size > 0
    folder = copied(store, public / "copy", *suffixes)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}

    def check() -> None:
        with pytest.raises(OSError, match="denied"):
            (folder / "new").touch()
        with Store.open(folder, write=False) as reader:
            assert [trial.number for trial in reader.trials()] == [0, 1]
            assert reader.winner is not None
            assert reader.winner.number == 1
            assert [one.outcome for one in reader.evaluations()] == [scored]
            study = reader.optuna_study()
        assert [trial.value for trial in study.trials] == [0.0, 0.5]

    assert in_child(as_nobody(check)) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_file_that_may_not_be_read_is_named(
    store: Store, public: Path, in_child: InChild
) -> None:
    store.close()
    folder = copied(store, public / "copy")
    (folder / "study.db").chmod(0o000)

    def check() -> None:
        with pytest.raises(ResultsError, match=r"study\.db: cannot be read: Permission denied"):
            Store.open(folder, write=False)

    assert in_child(as_nobody(check)) == 0


def test_a_file_that_changes_while_it_is_copied_is_copied_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "study.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")
    copy = shutil.copyfile

    changes = [1]

    def changing(source: Path, target: Path) -> Path:
        if changes:
            os.utime(path, ns=(1, changes.pop()))
        return Path(copy(source, target))

    monkeypatch.setattr(database, "_can_be_read", lambda path: False)
    monkeypatch.setattr(database.shutil, "copyfile", changing)
    with closing(database.connect_to_read(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("t",)]
    assert changes == []
    changes += range(2, 50)
    with pytest.raises(EvomergeError, match="is being written to"):
        database.connect_to_read(path)
