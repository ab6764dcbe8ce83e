"""Recipes ↔ the number of their form and their packed numbers: a form is stored once for all its trials."""

from __future__ import annotations

import sqlite3
from collections.abc import Hashable, Iterator
from itertools import repeat

from sqlalchemy import Connection, select

from evomerge.candidate import Parts, Recipe, with_numbers
from evomerge.store.encoding import decode_numbers, decode_recipe, encode_recipe
from evomerge.store.tables import RECIPE_FORMS


class RecipeForms:
    """Cache of the forms of a database."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[Hashable, ...], int] = {}

    def number(self, connection: sqlite3.Connection, recipe: Recipe, parts: Parts) -> int:
        """Return the number of a recipe's form, storing it if it is new.

        Args:
            connection: With an open transaction.
            recipe: The recipe.
            parts: Of the recipe.
        """
        known = self._numbers.get(parts.form)
        if known is None:
            text = encode_recipe(with_numbers(recipe, repeat(0.0)))
            insert = "INSERT INTO evomerge_recipe_forms (recipe) VALUES (?) ON CONFLICT DO NOTHING"
            connection.execute(insert, (text,))
            query = "SELECT recipe_form_id FROM evomerge_recipe_forms WHERE recipe = ?"
            (known,) = connection.execute(query, (text,)).fetchone()
            self._numbers[parts.form] = known
        return int(known)

    def forget(self) -> None:
        """Forget all numbers: those of a transaction that failed are nobody's."""
        self._numbers = {}


def read_forms(connection: Connection) -> dict[int, Recipe]:
    """Read every form: number → recipe with numbers of 0."""
    rows = connection.execute(select(RECIPE_FORMS))
    return {row.recipe_form_id: decode_recipe(row.recipe) for row in rows}


def recipe_of(form: Recipe, packed: bytes) -> Recipe:
    """Return the recipe of a form and its packed numbers."""
    numbers: Iterator[float] = iter(decode_numbers(packed))
    return with_numbers(form, numbers)
