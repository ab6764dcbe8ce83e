"""A trial in Optuna's own tables, written in the caller's transaction.

Optuna's storage commits by itself and takes some two queries a parameter (0.39 s a trial at 160
parameters). So the rows are written here, in plain SQL, and tests read them back with Optuna's storage
and compare them with its own rows. `open_optuna_storage` refuses a file whose tables are not those of
the installed Optuna.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.trial import TrialState

PARAMS_A_STATEMENT = 1000
"""SQLite binds at most 32,766 values a statement."""


class DistributionTexts:
    """Distributions as JSON, each written once: what is the same object has the same text."""

    def __init__(self) -> None:
        self._last: Mapping[str, BaseDistribution] | None = None
        self._known: dict[str, tuple[BaseDistribution, str]] = {}

    def of(
        self, distributions: Mapping[str, BaseDistribution]
    ) -> Mapping[str, tuple[BaseDistribution, str]]:
        """Return each distribution with its JSON, by name; others may be among them.

        Args:
            distributions: Name → distribution; not changed after the call.
        """
        if self._last is not distributions:
            self._last = distributions
            for name, one in distributions.items():
                known = self._known.get(name)
                if known is None or known[0] is not one:
                    self._known[name] = (one, distribution_to_json(one))
        return self._known


def insert_running(
    connection: sqlite3.Connection,
    study_id: int,
    number: int,
    params: Mapping[str, Any],
    distributions: Mapping[str, BaseDistribution],
    texts: DistributionTexts,
    user_attrs: Mapping[str, Any],
) -> int:
    """Insert a running trial.

    Args:
        connection: With an open transaction.
        study_id: Optuna's id of the study.
        number: The trial's number.
        params: Name → value.
        distributions: Name → distribution of each of `params`.
        texts: Cache of their JSON.
        user_attrs: Name → JSON value.

    Returns:
        Optuna's id of the trial.
    """
    trial_id = connection.execute(
        "INSERT INTO trials (number, study_id, state, datetime_start) VALUES (?, ?, ?, ?)",
        (number, study_id, TrialState.RUNNING.name, _now()),
    ).lastrowid
    assert trial_id is not None
    known = texts.of(distributions)
    cells: list[Any] = []
    for name, value in params.items():
        distribution, text = known[name]
        cells += (trial_id, name, distribution.to_internal_repr(value), text)
    most = 4 * PARAMS_A_STATEMENT
    for start in range(0, len(cells), most):
        some = cells[start : start + most]
        connection.execute(_insert_params(len(some) // 4), some)
    set_user_attrs(connection, trial_id, user_attrs)
    return trial_id


@dataclass(frozen=True)
class End:
    """What becomes of a running trial.

    Attributes:
        trial_id: Optuna's id.
        values: Finite objective values; of a pruned trial, their estimates; None: it failed.
        pruned_after: Items after which it was pruned. As in Optuna the value of a pruned trial is that
            of its last intermediate value; Optuna has none for several objectives.
    """

    trial_id: int
    values: Sequence[float] | None
    pruned_after: int | None = None

    @property
    def state(self) -> TrialState:
        """Failed, pruned or complete."""
        if self.values is None:
            return TrialState.FAIL
        return TrialState.COMPLETE if self.pruned_after is None else TrialState.PRUNED


def finish(connection: sqlite3.Connection, ends: Sequence[End]) -> None:
    """Make running trials complete, pruned, or failed.

    Args:
        connection: With an open transaction.
        ends: One a trial.
    """
    now = _now()
    connection.executemany(
        "INSERT INTO trial_intermediate_values (trial_id, step, intermediate_value, "
        "intermediate_value_type) VALUES (?, ?, ?, 'FINITE')",
        [
            (end.trial_id, end.pruned_after, *end.values)
            for end in ends
            if end.state is TrialState.PRUNED and end.values is not None and len(end.values) == 1
        ],
    )
    connection.executemany(
        "UPDATE trials SET state = ?, datetime_complete = ? WHERE trial_id = ?",
        [(end.state.name, now, end.trial_id) for end in ends],
    )
    connection.executemany(
        "INSERT INTO trial_values (trial_id, objective, value, value_type) "
        "VALUES (?, ?, ?, 'FINITE')",
        [
            (end.trial_id, index, value)
            for end in ends
            for index, value in enumerate(end.values or ())
        ],
    )


def read_params(connection: sqlite3.Connection, study_id: int) -> dict[int, dict[str, float]]:
    """Return the values of all trials' parameters: id of the trial → name → value, in order.

    Only for ranges of floats, which Optuna's tables hold as they are.
    """
    found: dict[int, dict[str, float]] = {}
    query = (
        "SELECT trial_id, param_name, param_value FROM trial_params JOIN trials USING (trial_id) "
        "WHERE study_id = ? ORDER BY param_id"
    )
    for trial_id, name, value in connection.execute(query, (study_id,)):
        found.setdefault(trial_id, {})[name] = value
    return found


def set_user_attrs(connection: sqlite3.Connection, trial_id: int, attrs: Mapping[str, Any]) -> None:
    """Insert attributes that the trial does not have yet."""
    connection.executemany(
        "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (?, ?, ?)",
        [(trial_id, key, json.dumps(value)) for key, value in attrs.items()],
    )


@cache
def _insert_params(count: int) -> str:
    """Return one statement for all rows: twice as fast as `executemany`."""
    return (
        "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) VALUES "
        + ",".join(["(?,?,?,?)"] * count)
    )


def _now() -> str:
    """Return naive UTC, written as Optuna's tables hold it."""
    return datetime.now(UTC).replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
