"""A merge as text and as mergekit's file."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.candidate import Coefficients, Merge, Vocabulary, loads
from evomerge.candidate.merge import component_of
from evomerge.kinds import read

number = st.floats(allow_nan=False, allow_infinity=False)
name = st.text(max_size=5)
row = st.tuples(number, number)
own = st.lists(st.lists(row, min_size=1, max_size=2).map(tuple), min_size=1, max_size=2).map(tuple)
shared = st.lists(row, min_size=1, max_size=2).map(tuple)
merges = st.builds(
    Merge,
    method=name,
    experts=st.tuples(name, name),
    base=st.none() | name,
    merges_base=st.booleans(),
    groups=st.sampled_from([(), ((0, 2),), ((0, 1), (1, 2))]),
    components=st.sampled_from([(), ("mlp",)]),
    own=st.dictionaries(name, own, max_size=2),
    shared=st.dictionaries(name, shared, max_size=2),
    fixed=st.dictionaries(name, st.booleans() | st.integers() | number, max_size=2),
    dtype=st.none() | name,
    vocabulary=st.none()
    | st.builds(
        Vocabulary,
        name,
        st.dictionaries(name, name | st.lists(number), max_size=2),
        st.none() | st.integers(),
    ),
    seed=st.integers(),
)


@given(merges)
def test_a_merge_comes_back_from_its_text(merge: Merge) -> None:
    found = read(merge.text())
    assert found == merge
    assert repr(found) == repr(merge)  # 1 and 1.0 and True are equal, and not the same
    assert json.loads(merge.text())["kind"] == "merge"


def test_coefficients_travel_beside_the_text() -> None:
    table = np.array([[0.5, 0.25, 0.0], [1.0, 0.0, 0.0]], np.float32)
    merge = Merge("ties", ("/a", "/b"), "/base", coefficients=Coefficients({"w": table}))
    assert len(merge.text()) < 400
    assert read(merge.text(), merge.arrays().__getitem__) == merge
    with pytest.raises(KeyError):
        read(merge.text())
    other = replace(merge, coefficients=Coefficients({"w": table + 1}))
    assert merge.text() != other.text()
    assert merge != other
    assert merge.renamed(lambda model: f"/there{model}").coefficients == merge.coefficients
    assert merge.recipe().coefficients == merge.coefficients
    assert merge.recipe().experts == merge.experts
    assert merge.numbers()[-1]["value"] == "+ 6 by tensor and row"


def test_a_merge_is_renamed_everywhere() -> None:
    merge = Merge("ties", ("/a", "/b"), "/base", vocabulary=Vocabulary("/a"))
    found = merge.renamed(lambda model: f"/there{model}")
    assert found == Merge(
        "ties", ("/there/a", "/there/b"), "/there/base", vocabulary=Vocabulary("/there/a")
    )
    assert found.model_names() == ("/there/base", "/there/a", "/there/b")


def test_over_all_layers_its_file_lists_models() -> None:
    merge = Merge(
        "ties", ("/a", "/b"), "/base", own={"weight": (((0.5, 1.0),),)}, fixed={"density": 0.2}
    )
    recipe = loads(merge.file())
    assert recipe == merge.recipe()
    assert [one.model for one in recipe.models] == ["/a", "/b"]
    assert [one.parameters for one in recipe.models] == [{"weight": 0.5}, {"weight": 1.0}]
    assert recipe.parameters == {"density": 0.2}


def test_a_tensor_belongs_to_the_first_component_in_its_name() -> None:
    components = ("mlp.up", "mlp", "attn")
    names = ("x.mlp.up.weight", "x.mlp.down.weight", "x.attn.mlp", "norm")
    assert [component_of(components, name) for name in names] == [0, 1, 1, 3]
    assert component_of((), "anything") == 0
