from __future__ import annotations

import math
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from evomerge.store.database import create_database, open_engine, plain, transaction
from evomerge.store.gradient_rows import _pack, _unpack, insert_step, read_steps, update_step


def test_names_are_stored_once(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    create_database(path, "a study", ["maximize"])
    engine = open_engine(path, write=True)
    point = {"b": 1.0, "a": 2.0}
    with transaction(engine, path) as connection:
        for step in range(3):
            insert_step(plain(connection), 0, step, {"task": (step,)}, point, 2 * step)
            update_step(plain(connection), 0, step, 0.5, point, None, 1, 2 * step + 1)
        query = "SELECT names FROM evomerge_dimension_sets"
        assert connection.exec_driver_sql(query).scalars().all() == ['["a","b"]']
        assert [found.gradients for found in read_steps(connection)] == [point] * 3
    engine.dispose()


@given(st.dictionaries(st.text(), st.floats()))
def test_every_bit_of_a_number_survives(numbers: dict[str, float]) -> None:
    names = sorted(numbers)
    found = _unpack(_pack(numbers, names), names)
    assert found.keys() == numbers.keys()
    for name, number in numbers.items():
        assert found[name] == number or (math.isnan(found[name]) and math.isnan(number))
        assert math.copysign(1, found[name]) == math.copysign(1, number)
