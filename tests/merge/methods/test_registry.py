"""Methods by name."""

from __future__ import annotations

import pytest

from evomerge.errors import RecipeError
from evomerge.merge import METHODS, method


def test_known_names():
    wanted = {
        "linear",
        "slerp",
        "task_arithmetic",
        "ties",
        "dare_linear",
        "dare_ties",
        "passthrough",
    }
    assert wanted <= set(METHODS)
    assert method("ties") is METHODS["ties"]
    assert {name for name in METHODS if METHODS[name].draws_masks} >= {"dare_linear", "dare_ties"}
    assert not METHODS["ties"].draws_masks


def test_an_unknown_name():
    with pytest.raises(RecipeError, match='merge_method: unknown merge method "dare_tie"; did you'):
        method("dare_tie")
