"""Stacks as values: runs of layers, sizes, files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.candidate import Coefficients, Merge, PathStep, Size, Stack, load_all, save
from evomerge.candidate.stack import is_parent

PARENT = Merge("passthrough", ("/one",), dtype="float32")
OTHER = Merge("passthrough", ("/two",), dtype="float32")
MIX = Merge("linear", ("/one", "/two"), fixed={"weight": 1.0}, dtype="float32")
MEMBERS = {"one": PARENT, "two": OTHER, "mix": MIX}
scales = st.one_of(st.just(1.0), st.floats(0.25, 4.0))
steps = st.builds(PathStep, st.sampled_from(list(MEMBERS)), st.integers(0, 5), scales)
paths = st.lists(steps, min_size=1, max_size=12).map(tuple)


def stack(*path: PathStep | tuple) -> Stack:
    used = dict.fromkeys(step[0] for step in path)
    return Stack("/base", {name: MEMBERS[name] for name in used}, tuple(PathStep(*s) for s in path))


@given(paths)
def test_the_text_gives_it_back(path):
    made = stack(*path)
    data = json.loads(made.text())
    assert data.pop("kind") == "stack"
    assert Stack.read(data) == made


@given(paths)
def test_runs_are_the_path(path):
    made = stack(*path)
    runs = list(made.runs())
    again = [(run.member, layer) for run in runs for layer in range(run.start, run.stop)]
    assert again == [step[:2] for step in path]
    total = 1.0
    for step in path:
        total *= step.scale
    assert runs[-1].scale == total


@given(path=paths)
def test_the_slices_of_the_file_are_the_path(path, tmp_path_factory):
    made = stack(*path)
    file = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    file.write_text(made.file())
    recipe, merges = load_all(file)
    assert recipe == made.recipe()
    assert merges == ({"mix": MIX.recipe()} if any(s.member == "mix" for s in path) else {})
    names = {"one": "/one", "two": "/two", "mix": "mix"}
    found = []
    for piece in recipe.slices:
        (source,) = piece.sources
        found += [(source.model, layer) for layer in range(*source.layer_range)]
    assert found == [(names[step.member], step.layer) for step in path]


def test_layers_behind_each_other_are_one_slice():
    made = stack(("one", 0), ("one", 1), ("one", 3), ("one", 4, 0.5), ("one", 5), ("two", 5))
    assert [run[:3] for run in made.runs()] == [
        ("one", 0, 2),
        ("one", 3, 4),
        ("one", 4, 6),
        ("two", 5, 6),
    ]
    slices = made.recipe().slices
    assert [bool(piece.sources[0].parameters) for piece in slices] == [False, False, True, True]


def test_what_layers_add_is_divided_by_all_scales_so_far():
    made = stack(("one", 0), ("two", 1, 0.5), ("one", 1, 4.0), ("two", 2, 0.5))
    factors = [
        {one.filter: one.value for one in piece.sources[0].parameters.get("scale", ())}
        for piece in made.recipe().slices
    ]
    assert factors == [
        {},
        {"o_proj": 2.0, "down_proj": 2.0},
        {"o_proj": 0.5, "down_proj": 0.5},
        {},
    ]


def test_its_size_counts_each_layer_as_often_as_it_stands_there():
    size = Size((3, 5, 4), 2)
    assert stack(("one", 0), ("one", 1), ("two", 2)).size(size) == 1.0
    assert stack(("one", 1), ("one", 1), ("two", 0), ("one", 1)).size(size) == 20 / 14


def test_models_are_the_base_and_those_of_the_members():
    made = stack(("mix", 0), ("two", 1))
    assert made.model_names() == ("/base", "/one", "/two")
    assert made.renamed(lambda name: f"{name}!").model_names() == ("/base!", "/one!", "/two!")


def test_coefficients_of_its_members_come_along(tmp_path):
    table = Coefficients({"x": np.ones((2, 1), dtype=np.float32)})
    mix = Merge("linear", ("/one", "/two"), fixed={"weight": 1.0}, coefficients=table)
    made = Stack("/base", {"mix": mix}, (PathStep("mix", 0),))
    assert made.arrays() == {table.digest: table.content}
    save(made.recipe(), tmp_path / "recipe.yaml", made.merges())
    assert (tmp_path / "mix.coefficients.safetensors").read_bytes() == table.content
    _, merges = load_all(tmp_path / "recipe.yaml")
    assert merges["mix"].coefficients == table


@pytest.mark.parametrize(
    ("member", "expected"),
    [
        (PARENT, True),
        (MIX, False),
        (Merge("passthrough", ("/one",), fixed={"scale": 0.5}), False),
        (Merge("linear", ("/one",), fixed={"weight": 1.0}), False),
    ],
)
def test_a_parent_is_a_single_model_as_it_is(member, expected):
    assert is_parent(member) is expected
