"""A trial in Optuna's own tables, written in the caller's transaction.

Optuna's storage commits by itself and takes some two queries a parameter (0.39 s a trial at 160
parameters; these inserts take 6 ms). So the rows are written here, through Optuna's own table
definitions, and a test reads them back with Optuna's storage. `open_optuna_storage` refuses a file
whose tables are not those of the installed Optuna.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import Connection, insert, update

_TRIALS = models.TrialModel.__table__


def insert_running(
    connection: Connection,
    study_id: int,
    number: int,
    params: Mapping[str, Any],
    distributions: Mapping[str, BaseDistribution],
    user_attrs: Mapping[str, Any],
) -> int:
    """Insert a running trial.

    Args:
        connection: With an open transaction.
        study_id: Optuna's id of the study.
        number: The trial's number.
        params: Name → value.
        distributions: Name → distribution of each of `params`.
        user_attrs: Name → JSON value.

    Returns:
        Optuna's id of the trial.
    """
    row = connection.execute(
        insert(_TRIALS).values(
            number=number, study_id=study_id, state=TrialState.RUNNING, datetime_start=_now()
        )
    )
    trial_id: int = row.inserted_primary_key[0]  # type: ignore[index]
    if params:
        connection.execute(
            insert(models.TrialParamModel.__table__),
            [
                {
                    "trial_id": trial_id,
                    "param_name": name,
                    "param_value": distributions[name].to_internal_repr(value),
                    "distribution_json": distribution_to_json(distributions[name]),
                }
                for name, value in params.items()
            ],
        )
    set_user_attrs(connection, trial_id, user_attrs)
    return trial_id


def finish(connection: Connection, trial_id: int, values: Sequence[float] | None) -> None:
    """Make a running trial complete (with finite values) or failed (without)."""
    state = TrialState.FAIL if values is None else TrialState.COMPLETE
    connection.execute(
        update(_TRIALS)
        .where(_TRIALS.c.trial_id == trial_id)
        .values(state=state, datetime_complete=_now())
    )
    if values is not None:
        finite = models.TrialValueModel.TrialValueType.FINITE
        connection.execute(
            insert(models.TrialValueModel.__table__),
            [
                {"trial_id": trial_id, "objective": index, "value": value, "value_type": finite}
                for index, value in enumerate(values)
            ],
        )


def set_user_attrs(connection: Connection, trial_id: int, attrs: Mapping[str, Any]) -> None:
    """Insert attributes that the trial does not have yet."""
    if attrs:
        connection.execute(
            insert(models.TrialUserAttributeModel.__table__),
            [
                {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
                for key, value in attrs.items()
            ],
        )


def _now() -> datetime:
    """Return naive UTC, which is what Optuna's tables hold."""
    return datetime.now(UTC).replace(tzinfo=None)
