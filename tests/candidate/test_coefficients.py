from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load, save

from evomerge.candidate import Coefficients


def tables() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=(2, 3)).astype(np.float32) for name in ("wide", "norm")}


def test_the_content_is_a_safetensors_file_that_gives_the_same_back() -> None:
    one = Coefficients(tables())
    for name, table in load(one.content).items():
        np.testing.assert_array_equal(table, one.tables[name])
    again = Coefficients.read(one.content)
    assert again == one
    assert again.content == one.content


def test_equal_numbers_are_equal_whatever_their_order_and_others_are_not() -> None:
    one, turned = tables(), dict(reversed(tables().items()))
    assert Coefficients(one).digest == Coefficients(turned).digest
    assert len({Coefficients(one), Coefficients(turned)}) == 1
    turned["norm"] = turned["norm"] + np.float32(1e-3)
    assert Coefficients(one) != Coefficients(turned)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no file", "not a safetensors file"),
        (save({"wide": np.zeros((2, 3))}), "wide: found float64"),
        (save({"wide": np.zeros(3, dtype=np.float32)}), "of 1 dimensions"),
    ],
)
def test_what_is_no_such_file_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Coefficients.read(content)


def test_they_are_shown_in_short() -> None:
    assert repr(Coefficients(tables())).startswith("Coefficients(2 tensors, 12 numbers, ")
