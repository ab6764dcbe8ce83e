from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from optuna.storages._rdb import models

from evomerge.config import Campaign
from evomerge.errors import EvomergeError, ResultsError
from evomerge.store.database import connect
from evomerge.store.events import SCHEMA_VERSION, TABLE, EventLog
from evomerge.store.optuna_study import create_study


@pytest.fixture
def path(tmp_path: Path, campaign: Campaign) -> Path:
    """A database in a folder whose name an URL would trip over."""
    folder = tmp_path / "a {b} 100% ? #"
    folder.mkdir()
    create_study(folder / "study.db", campaign, ["maximize"])
    EventLog.create(folder / "study.db", {"first": True})
    return folder / "study.db"


@pytest.fixture
def log(path: Path) -> Iterator[EventLog]:
    opened = EventLog.open(path, write=True)
    yield opened
    opened.connection.close()


def numbers(log: EventLog) -> list[int]:
    return [event.content["n"] for event in log.read("counted")]


def test_events_come_back_in_their_order_exactly(log: EventLog) -> None:
    odd = [0.1 + 0.2, 5e-324, -0.0, float("inf"), "\udce4 é"]
    log.append("one", {"odd": odd}, "a")
    log.append("two", {})
    log.append("one", {"odd": []}, "b")
    assert [(kind, key) for _, kind, key, _ in log.read("two", "one")] == [
        ("one", "a"),
        ("two", ""),
        ("one", "b"),
    ]
    (event,) = log.read("one", key="a")
    assert repr(event.content) == repr({"odd": odd})
    log.append("nan", {"x": float("nan")})
    (event,) = log.read("nan")
    assert math.isnan(event.content["x"])
    assert log.has("one", "b")
    assert not log.has("two", "b")


def test_our_table_never_meets_optunas() -> None:
    assert TABLE.startswith("evomerge_")
    assert TABLE not in models.BaseModel.metadata.tables


def test_a_transaction_is_all_or_nothing_and_one_inside_another_ends_with_it(log: EventLog) -> None:
    with log.transaction():
        log.append("counted", {"n": 0})
        with log.transaction():
            log.append("counted", {"n": 1})
        assert log.is_open
    assert not log.is_open
    with pytest.raises(ZeroDivisionError), log.transaction():  # noqa: PT012
        log.append("counted", {"n": 2})
        raise ZeroDivisionError
    assert not log.is_open
    assert numbers(log) == [0, 1]
    log.append("counted", {"n": 3})
    assert [event.seq for event in log.read("begun", "counted")] == [1, 2, 3, 4]


def test_a_reader_and_a_writer_do_not_meet(path: Path, log: EventLog) -> None:
    reader = EventLog.open(path, write=False)
    with log.transaction():
        log.append("counted", {"n": 1})
        assert numbers(reader) == []
    assert numbers(reader) == [1]
    with pytest.raises(EvomergeError, match="readonly database"):
        reader.append("counted", {"n": 2})
    reader.connection.close()


def test_a_full_disk_is_told_in_one_line(log: EventLog) -> None:
    (pages,) = log.connection.execute("PRAGMA page_count").fetchone()
    log.connection.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(EvomergeError, match=r"database or disk is full; .*evomerge resume"):
        log.append("big", {"numbers": [n**9 for n in range(100_000)]})


def test_commits_reach_the_disk(log: EventLog) -> None:
    assert log.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert log.connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


@pytest.mark.parametrize(("schema", "found"), [("99", "newer"), ("0", "earlier")])
@pytest.mark.parametrize("write", [True, False])
def test_another_schema_is_refused(path: Path, schema: str, found: str, write: bool) -> None:
    with closing(connect(path, "rw")) as connection:
        connection.execute(f"PRAGMA user_version = {schema}")
    expected = rf"{found} evomerge \(.*this one reads (schema )?{SCHEMA_VERSION}\)"
    with pytest.raises(ResultsError, match=expected):
        EventLog.open(path, write=write)


def test_a_folder_of_schema_5_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE evomerge_meta (key, value)")
    with pytest.raises(ResultsError, match=r"an earlier evomerge .* search again with --force"):
        EventLog.open(path, write=False)


def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mine (x)")
    with pytest.raises(ResultsError, match="holds no campaign of evomerge"):
        EventLog.open(path, write=False)


@pytest.mark.parametrize("damage", ["text", "page"])
def test_a_damaged_file_is_named(path: Path, damage: str) -> None:
    content = bytearray(path.read_bytes())
    if damage == "text":
        content = bytearray(b"this is no database, and it was never one" * 200)
    else:
        content[8192:-8192] = b"\xff" * (len(content) - 16384)
    path.write_bytes(content)
    with pytest.raises(
        ResultsError, match=r"study\.db: is damaged: .*no backup was found: restore"
    ):
        EventLog.open(path, write=True)


def test_a_damaged_event_is_named(log: EventLog) -> None:
    log.append("counted", {"n": 1})
    log.connection.execute(f"UPDATE {TABLE} SET content = x'00' WHERE kind = 'counted'")
    with pytest.raises(ResultsError, match=r"study\.db: is damaged: "):
        numbers(log)
