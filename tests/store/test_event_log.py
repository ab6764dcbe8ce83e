from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from evomerge.store.database import create_database, open_engine
from evomerge.store.event_log import EventLog

INSERT = "INSERT INTO evomerge_baselines (seq, params, objectives) VALUES (?, '{}', '[]')"
Opened = tuple[EventLog, list[str]]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    """An event log, and a list that grows with everything that is undone."""
    path, undone = tmp_path / "study.db", list[str]()
    create_database(path, "study", ["maximize"])
    engine = open_engine(path, write=True)
    yield EventLog(engine, path, [lambda: undone.append("undone")]), undone
    engine.dispose()


def insert(log: EventLog) -> int:
    with log.events() as (connection, next_seq):
        seq = next_seq()
        connection.execute(INSERT, (seq,))
    return seq


def stored(log: EventLog) -> list[int]:
    with log.transaction() as connection:
        return list(_seqs(connection))


def _seqs(connection: Connection) -> list[int]:
    return list(connection.execute(text("SELECT seq FROM evomerge_baselines")).scalars())


def test_places_follow_each_other_and_go_on_after_reopening(opened: Opened) -> None:
    log, undone = opened
    assert [insert(log), insert(log)] == [0, 1]
    assert insert(EventLog(log._engine, log._path, [])) == 2
    assert stored(log) == [0, 1, 2]
    assert not undone


def test_a_transaction_inside_another_ends_with_it(opened: Opened) -> None:
    log, undone = opened
    assert not log.is_open
    with log.events():
        assert insert(log) == 0
        assert log.is_open
        assert insert(log) == 1
    assert not log.is_open
    assert stored(log) == [0, 1]
    assert not undone


def test_an_error_undoes_all_and_its_places_are_given_again(opened: Opened) -> None:
    log, undone = opened
    insert(log)
    with pytest.raises(ZeroDivisionError), log.events():  # noqa: PT012
        assert insert(log) == 1
        raise ZeroDivisionError
    assert undone == ["undone"]
    assert not log.is_open
    assert stored(log) == [0]
    assert insert(log) == 1
