from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import insert, select, update

from evomerge.errors import EvomergeError, ResultsError
from evomerge.store.database import (
    check_database,
    close_optuna_storage,
    create_database,
    open_engine,
    open_optuna_storage,
    transaction,
)
from evomerge.store.tables import META, SCHEMA_VERSION


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database in a folder whose name an URL would trip over."""
    folder = tmp_path / "a {b} 100% ? #"
    folder.mkdir()
    create_database(folder / "study.db", "a study", ["maximize"])
    return folder / "study.db"


def set_schema(path: Path, version: str) -> None:
    engine = open_engine(path, write=True)
    with transaction(engine, path) as connection:
        connection.execute(insert(META).values(key="schema", value=version))
    engine.dispose()


def test_optuna_finds_its_study(path: Path) -> None:
    storage = open_optuna_storage(path)
    assert [study.study_name for study in storage.get_all_studies()] == ["a study"]
    close_optuna_storage(storage)


def test_a_reader_and_a_writer_do_not_meet(path: Path) -> None:
    writer, reader = open_engine(path, write=True), open_engine(path, write=False)
    with transaction(writer, path) as writing:
        writing.execute(insert(META).values(key="schema", value="1"))
        with transaction(reader, path) as reading:
            assert reading.execute(select(META)).all() == []
    with transaction(reader, path) as reading:
        assert reading.execute(select(META)).all() == [("schema", "1")]
    writer.dispose()
    reader.dispose()


def test_a_reader_cannot_write(path: Path) -> None:
    reader = open_engine(path, write=False)
    with (
        pytest.raises(EvomergeError, match="readonly database"),
        transaction(reader, path) as connection,
    ):
        connection.execute(insert(META).values(key="a", value="b"))
    reader.dispose()


def test_a_transaction_is_all_or_nothing(path: Path) -> None:
    set_schema(path, "1")
    engine = open_engine(path, write=True)

    def half() -> None:
        with transaction(engine, path) as connection:
            connection.execute(update(META).values(value="2"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    with transaction(engine, path) as connection:
        assert connection.execute(select(META.c.value)).scalars().all() == ["1"]
    engine.dispose()


def test_a_full_disk_is_told_in_one_line(path: Path) -> None:
    set_schema(path, "1")
    engine = open_engine(path, write=True)
    with engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with (
        pytest.raises(EvomergeError, match=r"database or disk is full; .*evomerge resume"),
        transaction(engine, path) as connection,
    ):
        connection.execute(insert(META).values(key="big", value="x" * 100_000))
    engine.dispose()


def test_commits_reach_the_disk(path: Path) -> None:
    engine = open_engine(path, write=True)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
    engine.dispose()


@pytest.mark.parametrize(("schema", "found"), [("99", "newer"), ("4", "earlier")])
def test_another_schema_is_refused(path: Path, schema: str, found: str) -> None:
    set_schema(path, schema)
    engine = open_engine(path, write=False)
    expected = rf"{found} evomerge \(schema {schema}, this one reads {SCHEMA_VERSION}\)"
    with pytest.raises(ResultsError, match=expected):
        check_database(engine, path, thorough=False)
    engine.dispose()


def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mine (x)")
    engine = open_engine(path, write=False)
    with pytest.raises(ResultsError, match="holds no campaign of evomerge"):
        check_database(engine, path, thorough=False)
    engine.dispose()


@pytest.mark.parametrize("damage", ["text", "page"])
def test_a_damaged_file_is_named(path: Path, damage: str) -> None:
    set_schema(path, "1")
    content = bytearray(path.read_bytes())
    if damage == "text":
        content = bytearray(b"this is no database, and it was never one" * 200)
    else:
        content[8192:-8192] = b"\xff" * (len(content) - 16384)
    path.write_bytes(content)
    engine = open_engine(path, write=True)
    with pytest.raises(
        ResultsError, match=r"study\.db: is damaged: .*there is no backup of it: restore"
    ):
        check_database(engine, path, thorough=True)
    engine.dispose()


def test_tables_of_another_optuna_are_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v9.0.0.a'")
        connection.commit()
    with pytest.raises(ResultsError, match="another version of Optuna"):
        open_optuna_storage(path)
