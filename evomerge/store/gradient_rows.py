"""Steps of descents: points and gradients as exact bytes, under names that are stored once."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping

from sqlalchemy import Connection, select

from evomerge.store.encoding import decode_numbers, encode_json, encode_numbers
from evomerge.store.records import StoredGradient
from evomerge.store.tables import DIMENSION_SETS, GRADIENT_STEPS


def insert_step(
    connection: sqlite3.Connection,
    descent: int,
    step: int,
    items: Mapping[str, tuple[int, ...]],
    params: Mapping[str, float],
    seq: int,
) -> None:
    """Write a step that begins.

    Args:
        connection: With an open transaction.
        descent: Which descent.
        step: Which step of it.
        items: Task → which of its search items.
        params: Where the gradient is taken.
        seq: Its place in the order of events.

    Raises:
        ValueError: The step was asked before.
    """
    if _state(connection, descent, step) is not None:
        raise ValueError(f"step {step} of descent {descent} was asked before")
    names = sorted(params)
    connection.execute(
        "INSERT INTO evomerge_gradient_steps (descent, step, items, dimension_set_id, params, "
        "asked_seq) VALUES (?, ?, ?, ?, ?, ?)",
        (
            descent,
            step,
            encode_json({task: list(chosen) for task, chosen in items.items()}),
            _set_number(connection, names),
            _pack(params, names),
            seq,
        ),
    )


def update_step(
    connection: sqlite3.Connection,
    descent: int,
    step: int,
    loss: float | None,
    gradients: Mapping[str, float],
    failure: str | None,
    cost_items: int,
    seq: int,
    trace: str = "",
) -> None:
    """Write what came of a step.

    Args:
        connection: With an open transaction.
        descent: Which descent.
        step: Which step of it.
        loss: None after a failure.
        gradients: Dimension → gradient.
        failure: Why there is no loss.
        cost_items: Items that it cost.
        seq: Its place in the order of events.
        trace: The traceback behind a failure.

    Raises:
        ValueError: The step was not asked, or was told already; or the loss is not a finite number,
            which is a failure.
    """
    if loss is not None and not math.isfinite(loss):
        raise ValueError(f"a loss of {loss} is none: tell a failure")
    state = _state(connection, descent, step)
    if state != "asked":
        raise ValueError(f"step {step} of descent {descent} is {state or 'unknown'}, not asked")
    names = sorted(gradients)
    connection.execute(
        "UPDATE evomerge_gradient_steps SET loss = ?, gradient_set_id = ?, gradients = ?, failure = ?, "
        "cost_items = ?, told_seq = ?, failure_trace = ? WHERE descent = ? AND step = ?",
        (
            loss,
            _set_number(connection, names),
            _pack(gradients, names),
            failure,
            cost_items,
            seq,
            trace or None,
            descent,
            step,
        ),
    )


def read_steps(connection: Connection) -> tuple[StoredGradient, ...]:
    """Read every step, in the order in which they were asked."""
    sets = {
        row.dimension_set_id: json.loads(row.names)
        for row in connection.execute(select(DIMENSION_SETS))
    }
    rows = connection.execute(select(GRADIENT_STEPS).order_by(GRADIENT_STEPS.c.asked_seq)).all()
    return tuple(
        StoredGradient(
            descent=row.descent,
            step=row.step,
            items={task: tuple(chosen) for task, chosen in json.loads(row.items).items()},
            params=_unpack(row.params, sets[row.dimension_set_id]),
            loss=row.loss,
            gradients={}
            if row.gradients is None
            else _unpack(row.gradients, sets[row.gradient_set_id]),
            failure=row.failure,
            cost_items=row.cost_items or 0,
            asked_seq=row.asked_seq,
            told_seq=row.told_seq,
            failure_trace=row.failure_trace or "",
        )
        for row in rows
    )


def _state(connection: sqlite3.Connection, descent: int, step: int) -> str | None:
    row = connection.execute(
        "SELECT told_seq FROM evomerge_gradient_steps WHERE descent = ? AND step = ?",
        (descent, step),
    ).fetchone()
    if row is None:
        return None
    return "asked" if row[0] is None else "told"


def _set_number(connection: sqlite3.Connection, names: list[str]) -> int:
    text = encode_json(names)
    connection.execute(
        "INSERT INTO evomerge_dimension_sets (names) VALUES (?) ON CONFLICT DO NOTHING", (text,)
    )
    known = "SELECT dimension_set_id FROM evomerge_dimension_sets WHERE names = ?"
    return int(connection.execute(known, (text,)).fetchone()[0])


def _pack(numbers: Mapping[str, float], names: list[str]) -> bytes:
    return encode_numbers([numbers[name] for name in names])


def _unpack(packed: bytes, names: list[str]) -> dict[str, float]:
    return dict(zip(names, decode_numbers(packed), strict=True))
