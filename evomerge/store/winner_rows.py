"""The winner's rows: which trials were chosen, one after the other, and how."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import replace

from sqlalchemy import Connection, func, select

from evomerge.candidate.trial import Entry
from evomerge.store.encoding import decode_recipe, encode_recipe
from evomerge.store.records import Evaluation, Winner
from evomerge.store.tables import EVALUATIONS, WINNERS


def insert_winner(connection: sqlite3.Connection, entry: Entry, how: str) -> None:
    """Write which trial is the winner from now on; nothing where it is already.

    Args:
        connection: With an open transaction.
        entry: A trial.
        how: What chose it.

    Raises:
        ValueError: It is no trial.
    """
    if entry.number is None:
        raise ValueError(f"{entry.name} is no trial, so it cannot be the winner")
    last = "SELECT number FROM evomerge_winners ORDER BY winner_id DESC LIMIT 1"
    if connection.execute(last).fetchone() != (entry.number,):
        insert = "INSERT INTO evomerge_winners (number, recipe, how) VALUES (?, ?, ?)"
        recipe = encode_recipe(entry.candidate)
        connection.execute(insert, (entry.number, recipe, how))


def read_winner(connection: Connection) -> Winner | None:
    """Read the winner; None before one is chosen."""
    query = select(WINNERS).order_by(WINNERS.c.winner_id.desc()).limit(1)
    last = connection.execute(query).first()
    return None if last is None else Winner(last.number, last.how, decode_recipe(last.recipe))


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
