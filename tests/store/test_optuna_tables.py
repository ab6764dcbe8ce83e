from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from evomerge.store import optuna_tables
from evomerge.store.database import (
    close_optuna_storage,
    create_database,
    open_engine,
    open_optuna_storage,
    plain,
    transaction,
)

SPACE = {
    "weight": FloatDistribution(0.0, 1.2),
    "log": FloatDistribution(1e-3, 1.0, log=True),
    "count": IntDistribution(0, 9),
    "name": CategoricalDistribution(["a", "b"]),
}
PARAMS = {"weight": 0.1 + 0.2, "log": 0.01, "count": 3, "name": "b"}


def test_optuna_reads_what_we_wrote(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    study_id = create_database(path, "ours", ["maximize", "minimize"])
    engine = open_engine(path, write=True)
    texts = optuna_tables.DistributionTexts()
    with transaction(engine, path) as opened:
        connection = plain(opened)
        ids = [
            optuna_tables.insert_running(
                connection, study_id, n, PARAMS, SPACE, texts, {"method": "ties"}
            )
            for n in range(3)
        ]
        ends = [optuna_tables.End(ids[1], [0.1 + 0.2, -1.0]), optuna_tables.End(ids[2], None)]
        optuna_tables.finish(connection, ends)
    engine.dispose()

    storage = open_optuna_storage(path)
    trials = optuna.load_study(study_name="ours", storage=storage).trials
    close_optuna_storage(storage)
    assert [t.number for t in trials] == [0, 1, 2]
    assert [t.state for t in trials] == [TrialState.RUNNING, TrialState.COMPLETE, TrialState.FAIL]
    assert all(t.params == PARAMS and t.distributions == SPACE for t in trials)
    assert [t.values for t in trials] == [None, [0.1 + 0.2, -1.0], None]
    assert trials[0].user_attrs == {"method": "ties"}
    assert trials[1].datetime_start is not None
    assert abs(datetime.now() - trials[1].datetime_start) < timedelta(minutes=1)
    assert trials[1].duration is not None
    assert trials[0].datetime_complete is None


def test_rows_are_those_that_optuna_writes_itself(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    study_id = create_database(path, "ours", ["maximize"])
    engine = open_engine(path, write=True)
    texts = optuna_tables.DistributionTexts()
    with transaction(engine, path) as opened:
        connection = plain(opened)
        ours = optuna_tables.insert_running(connection, study_id, 0, PARAMS, SPACE, texts, {})
        optuna_tables.finish(connection, [optuna_tables.End(ours, [1.5])])
    engine.dispose()
    storage = open_optuna_storage(path)
    theirs = storage.create_new_trial(
        study_id,
        optuna.trial.create_trial(state=TrialState.RUNNING, params=PARAMS, distributions=SPACE),
    )
    storage.set_trial_state_values(theirs, TrialState.COMPLETE, [1.5])
    rows = {}
    with storage.engine.connect() as connection:
        for table, columns in {
            "trials": "study_id, state",
            "trial_params": "param_name, param_value, distribution_json",
            "trial_values": "objective, value, value_type",
        }.items():
            for trial_id in (ours, theirs):
                query = f"SELECT {columns} FROM {table} WHERE trial_id = {trial_id} ORDER BY 1, 2"
                rows[table, trial_id] = connection.exec_driver_sql(query).all()
    close_optuna_storage(storage)
    for table in ("trials", "trial_params", "trial_values"):
        assert rows[table, ours] == rows[table, theirs]
        assert rows[table, ours]
