from __future__ import annotations

import numpy as np

from evomerge.candidate.gates import Gates
from evomerge.candidate.tables import Tables

TABLES = {"gate.0": np.ones((2, 3), dtype=np.float32)}


def test_equal_tables_of_unlike_classes_are_not_equal() -> None:
    assert Tables(TABLES) == Tables(dict(TABLES))
    assert Gates(TABLES) != Tables(TABLES)


def test_the_file_says_what_it_holds() -> None:
    assert b"evomerge gates" in Gates(TABLES).content
    assert Gates(TABLES).digest != Tables(TABLES).digest
    assert Gates.read(Gates(TABLES).content) == Gates(TABLES)


def test_numbers_are_counted_and_a_view_has_the_bytes_of_its_copy() -> None:
    whole = np.arange(12, dtype=np.float32).reshape(3, 4)
    view = Tables({"part": whole[:, ::2]})
    assert view.count == 6
    assert view.content == Tables({"part": whole[:, ::2].copy()}).content
