from __future__ import annotations

import numpy as np
import pytest

from evomerge.candidate import Coefficients, Merge, Vocabulary
from evomerge.candidate.experts import with_expert, without_expert

OWN = {"weight": (((0.1, 0.2), (0.3, 0.4)),), "density": (((0.5, 0.7),),)}
MERGE = Merge("ties", ("/a", "/b"), "/base", own=OWN, components=("mlp",), fixed={"lambda": 1.0})


def test_one_more_expert_has_one_weight_and_the_mean_of_all_else() -> None:
    found = with_expert(MERGE, "/c", 0.9)
    assert found is not None
    assert found.experts == ("/a", "/b", "/c")
    assert found.own["weight"] == (((0.1, 0.2, 0.9), (0.3, 0.4, 0.9)),)
    assert found.own["density"][0][0] == pytest.approx((0.5, 0.7, 0.6))
    assert (found.base, found.fixed, found.components) == ("/base", {"lambda": 1.0}, ("mlp",))


def test_an_expert_that_joined_and_left_changes_nothing() -> None:
    tables = {"x": np.ones((2, 3), dtype=np.float32)}
    merge = Merge("ties", ("/a", "/b"), "/base", own=OWN, coefficients=Coefficients(tables))
    longer = with_expert(merge, "/c", 0.9)
    assert longer is not None
    assert longer.coefficients is not None
    assert longer.coefficients.tables["x"].tolist() == [[1, 1, 1], [1, 1, 1], [0, 0, 0]]
    assert without_expert(longer, "/c") == merge


def test_the_others_stay_where_they_are() -> None:
    found = without_expert(MERGE, "/a")
    assert found is not None
    assert found.experts == ("/b",)
    assert found.own == {"weight": (((0.2,), (0.4,)),), "density": (((0.7,),),)}
    assert without_expert(MERGE, "/elsewhere") is MERGE


def test_what_cannot_be_changed_is_none() -> None:
    alone = Merge("passthrough", ("/a",))
    assert with_expert(alone, "/b", 1.0) is None
    assert with_expert(MERGE, "/a", 1.0) is None
    assert without_expert(alone, "/a") is None
    assert without_expert(MERGE, "/base") is None
    matched = Merge("ties", ("/a", "/b"), "/base", vocabulary=Vocabulary("union"))
    assert with_expert(matched, "/c", 1.0) is None
    assert without_expert(matched, "/a") is None
