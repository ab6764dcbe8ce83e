"""The winner's rows: which trials were chosen, one after the other, and how."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import replace

from sqlalchemy import Connection, func, select

from evomerge.store.records import Evaluation, Winner
from evomerge.store.recipe_forms import read_forms, recipe_of
from evomerge.store.tables import EVALUATIONS, TRIALS, WINNERS


def insert_winner(connection: sqlite3.Connection, number: int, how: str) -> None:
    """Write which trial is the winner from now on; nothing where it is already.

    Args:
        connection: With an open transaction.
        number: Of the trial.
        how: What chose it.

    Raises:
        ValueError: There is no such trial.
    """
    if connection.execute("SELECT 1 FROM evomerge_trials WHERE number = ?", (number,)).fetchone():
        last = "SELECT number FROM evomerge_winners ORDER BY winner_id DESC LIMIT 1"
        if connection.execute(last).fetchone() != (number,):
            insert = "INSERT INTO evomerge_winners (number, how) VALUES (?, ?)"
            connection.execute(insert, (number, how))
        return
    raise ValueError(f"trial {number} is unknown, so it cannot be the winner")


def read_winner(connection: Connection) -> Winner | None:
    """Read the winner; None before one is chosen."""
    query = select(WINNERS).order_by(WINNERS.c.winner_id.desc()).limit(1)
    last = connection.execute(query).first()
    if last is None:
        return None
    row = connection.execute(select(TRIALS).where(TRIALS.c.number == last.number)).one()
    recipe = recipe_of(read_forms(connection)[row.recipe_form_id], row.numbers)
    return Winner(last.number, last.how, recipe)


def with_winner(connection: Connection, evaluations: Iterable[Evaluation]) -> list[Evaluation]:
    """Return evaluations in which the winner's are of kind `winner`, those of earlier ones `finalist`."""
    query = select(WINNERS.c.number).order_by(WINNERS.c.winner_id.desc()).limit(1)
    number = connection.execute(query).scalar()
    return [
        replace(one, kind="winner") if one.number is not None and one.number == number else one
        for one in evaluations
    ]


def count_holdout_readings(connection: Connection) -> int:
    """Count the trials that were scored on holdout, each of them a winner when it was."""
    condition = (EVALUATIONS.c.split == "holdout") & EVALUATIONS.c.number.is_not(None)
    query = select(func.count(EVALUATIONS.c.number.distinct())).where(condition)
    return int(connection.execute(query).scalar_one())
