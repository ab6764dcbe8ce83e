from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from optuna.distributions import FloatDistribution

from evomerge.store import Store
from evomerge.store.database import open_engine, transaction
from evomerge.store.encoding import encode_json, encode_recipe
from evomerge.store.migration import bring_up_to_date, in_memory, is_up_to_date
from evomerge.store.outcomes import ItemSets
from evomerge.store.trial_rows import read_trials
from evomerge.trial import Candidate, Job, Outcome, row_name

SPACE = {"w": FloatDistribution(0.0, 1.0), "v": FloatDistribution(0.0, 1.0)}
OLD_TRIALS = """CREATE TABLE evomerge_trials (
    number INTEGER NOT NULL PRIMARY KEY, trial_id INTEGER NOT NULL, name VARCHAR NOT NULL,
    recipe TEXT NOT NULL, params TEXT NOT NULL, state VARCHAR NOT NULL, objectives TEXT,
    asked_seq INTEGER NOT NULL UNIQUE, told_seq INTEGER UNIQUE)"""

Make = Callable[..., Candidate]


@pytest.fixture
def filled(store: Store, candidate: Make, scored: Outcome) -> Store:
    """Three trials, one of them told, and no writer."""
    for number in range(3):
        point = {"w": 0.1 + 0.2, "v": number / 7}
        store.asked(candidate(number, 0.1 * number), point, SPACE)
    store.told(candidate(1), scored, [0.1 + 0.2])
    store.close()
    return store


def make_schema_3(connection: sqlite3.Connection) -> None:
    """Rows under their names, any number of winners, no tracebacks."""
    connection.create_function("row_name", 1, row_name)
    connection.execute("UPDATE evomerge_evaluations SET key = row_name(key)")
    connection.execute("ALTER TABLE evomerge_evaluations RENAME COLUMN key TO name")
    connection.execute("ALTER TABLE evomerge_evaluations DROP COLUMN failure_trace")
    tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
    if ("evomerge_slope_steps",) in tables:
        connection.execute("ALTER TABLE evomerge_slope_steps DROP COLUMN failure_trace")
    connection.execute("DROP TABLE evomerge_winners")


def make_older(store: Store, schema: int) -> None:
    """Give a database the tables that an older evomerge wrote."""
    with Store.open(store.folder, write=False) as reader:
        trials = reader.trials()
    with closing(sqlite3.connect(store.folder / "study.db")) as connection:
        ids = dict(connection.execute("SELECT number, trial_id FROM evomerge_trials"))
        connection.execute("DROP TABLE evomerge_trials")
        connection.execute("DROP TABLE evomerge_recipe_forms")
        connection.execute(OLD_TRIALS)
        for trial in trials:
            objectives = None if trial.values is None else encode_json(list(trial.values))
            connection.execute(
                "INSERT INTO evomerge_trials VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    trial.number,
                    ids[trial.number],
                    trial.candidate.name,
                    encode_recipe(trial.recipe),
                    encode_json(dict(trial.params)),
                    trial.state,
                    objectives,
                    trial.asked_seq,
                    trial.told_seq,
                ),
            )
        if schema == 1:
            connection.execute("DROP TABLE evomerge_slope_steps")
            connection.execute("DROP TABLE evomerge_prunings")
        make_schema_3(connection)
        connection.execute("UPDATE evomerge_meta SET value = ? WHERE key = 'schema'", (schema,))
        connection.commit()


@pytest.mark.parametrize("schema", [1, 2])
def test_a_reader_sees_all_of_an_older_file_and_changes_nothing(filled: Store, schema: int) -> None:
    with Store.open(filled.folder, write=False) as reader:
        trials, evaluations = reader.trials(), reader.evaluations()
    make_older(filled, schema)
    before = (filled.folder / "study.db").read_bytes()
    with Store.open(filled.folder, write=False) as reader:
        assert reader.trials() == trials
        assert reader.evaluations() == evaluations
        assert reader.slope_steps() == ()
    assert (filled.folder / "study.db").read_bytes() == before


def test_of_several_winners_the_last_one_is_kept_and_rows_get_keys(
    filled: Store, candidate: Make, scored: Outcome
) -> None:
    expert = Candidate("ties", candidate(0).recipe)
    with Store.open(filled.folder, write=True) as writer:
        writer.record(Job(expert, "search"), scored, "expert")
        for number in (1, 0):
            writer.record(Job(candidate(number), "select"), scored, "finalist")
            writer.record(Job(candidate(number), "holdout"), scored, "finalist")
    with closing(sqlite3.connect(filled.folder / "study.db")) as connection:
        winners = "UPDATE evomerge_evaluations SET kind = 'winner' WHERE split = 'holdout'"
        connection.execute(winners)
        models = {"base": "1f", "one": "2f"}
        text = encode_json({"models": models, "items": {}})
        connection.execute("UPDATE evomerge_meta SET value = ? WHERE key = 'facts'", (text,))
        make_schema_3(connection)
        connection.execute("UPDATE evomerge_meta SET value = '3' WHERE key = 'schema'")
        connection.commit()
    for write in (False, True):
        with Store.open(filled.folder, write=write) as store:
            rows = {(one.key, one.kind, one.split): one.outcome for one in store.evaluations()}
            assert store.winner is not None
            assert store.winner.candidate == candidate(0)
            assert store.holdout_readings == 2
            assert store.facts["models"] == {"base": "1f", "expert:one": "2f"}
        assert list(rows) == [
            ("expert:ties", "expert", "search"),
            ("trial:1", "finalist", "select"),
            ("trial:1", "finalist", "holdout"),
            ("trial:0", "winner", "select"),
            ("trial:0", "winner", "holdout"),
        ]
        assert all(outcome == scored for outcome in rows.values())
    with closing(sqlite3.connect(filled.folder / "study.db")) as connection:
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


@pytest.mark.parametrize("schema", [1, 2])
def test_a_writer_goes_on_where_the_older_file_ends(
    filled: Store, candidate: Make, scored: Outcome, schema: int
) -> None:
    with Store.open(filled.folder, write=False) as reader:
        trials = reader.trials()
    make_older(filled, schema)
    with Store.open(filled.folder, write=True) as writer:
        assert writer.trials() == trials
        writer.told(candidate(0), scored, [0.5])
        writer.asked(candidate(3, 0.7), {"w": 0.5, "v": 0.25}, SPACE)
        assert writer.slope_asked(0, 0, {}, {"w": 1.0}) == 6
    with Store.open(filled.folder, write=False) as reader:
        assert [trial.state for trial in reader.trials()] == [
            "complete", "complete", "asked", "asked",
        ]  # fmt: skip
        assert reader.trials()[2] == trials[2]
        assert reader.trials()[3].recipe == candidate(3, 0.7).recipe


def test_a_file_is_brought_up_to_date_once(filled: Store) -> None:
    path: Path = filled.folder / "study.db"
    make_older(filled, 2)
    engine = open_engine(path, write=True)
    copy = in_memory(engine, path)
    assert (is_up_to_date(engine, path), is_up_to_date(copy, path)) == (False, True)
    copy.dispose()
    for _ in range(2):
        bring_up_to_date(engine, path)
        assert is_up_to_date(engine, path)
    with transaction(engine, path) as connection:
        names = connection.exec_driver_sql("SELECT name FROM sqlite_master").scalars().all()
        assert not [name for name in names if "schema_2" in name]
        assert len(read_trials(connection, 1, ItemSets())) == 3
    engine.dispose()
