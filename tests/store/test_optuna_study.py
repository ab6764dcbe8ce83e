from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from evomerge.config import Campaign
from evomerge.errors import ResultsError
from evomerge.store.database import connect
from evomerge.store.optuna_study import (
    STUDY_ID,
    close_storage,
    create_study,
    finish,
    insert_running,
    open_storage,
)

SPACE = {
    "weight": FloatDistribution(0.0, 1.2),
    "log": FloatDistribution(1e-3, 1.0, log=True),
    "count": IntDistribution(0, 9),
    "name": CategoricalDistribution(["a", "b"]),
}
PARAMS = {"weight": 0.1 + 0.2, "log": 0.01, "count": 3, "name": "b"}


def test_optuna_reads_what_we_wrote(tmp_path: Path, campaign: Campaign) -> None:
    path = tmp_path / "study.db"
    pareto = campaign.model_copy(update={"mode": "pareto"})
    create_study(path, pareto, ["maximize", "minimize"])
    with closing(connect(path, "rw")) as connection:
        for number in range(3):
            insert_running(connection, number, PARAMS, SPACE, {"method": "ties"})
        finish(connection, 1, [0.1 + 0.2, -1.0], {"task/acc": 0.5})
        finish(connection, 2, None, {"failure": "not finite"})

    storage = open_storage(path)
    study = optuna.load_study(study_name=campaign.name, storage=storage)
    trials = study.trials
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.metric_names == ["first/acc", "second/acc"]
    close_storage(storage)
    assert [t.number for t in trials] == [0, 1, 2]
    assert [t.state for t in trials] == [TrialState.RUNNING, TrialState.COMPLETE, TrialState.FAIL]
    assert all(t.params == PARAMS and t.distributions == SPACE for t in trials)
    assert [t.values for t in trials] == [None, [0.1 + 0.2, -1.0], None]
    assert [t.user_attrs for t in trials] == [
        {"method": "ties"},
        {"method": "ties", "task/acc": 0.5},
        {"method": "ties", "failure": "not finite"},
    ]
    assert trials[1].datetime_start is not None
    assert abs(datetime.now() - trials[1].datetime_start) < timedelta(minutes=1)
    assert trials[1].duration is not None
    assert trials[0].datetime_complete is None


def test_rows_are_those_that_optuna_writes_itself(tmp_path: Path, campaign: Campaign) -> None:
    path = tmp_path / "study.db"
    create_study(path, campaign, ["maximize"])
    with closing(connect(path, "rw")) as connection:
        insert_running(connection, 0, PARAMS, SPACE, {})
        finish(connection, 0, [1.5], {})
    ours, storage = 1, open_storage(path)
    theirs = storage.create_new_trial(
        STUDY_ID,
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
    close_storage(storage)
    for table in ("trials", "trial_params", "trial_values"):
        assert rows[table, ours] == rows[table, theirs]
        assert rows[table, ours]


def test_tables_of_another_optuna_are_refused(tmp_path: Path, campaign: Campaign) -> None:
    create_study(tmp_path / "study.db", campaign, ["maximize"])
    with closing(sqlite3.connect(tmp_path / "study.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v9.0.0.a'")
        connection.commit()
    with pytest.raises(ResultsError, match="another version of Optuna"):
        open_storage(tmp_path / "study.db")
