"""Rows that some inputs lack, filled up by hand; `test_vocabulary` has mergekit as its oracle."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.files import TensorHeader
from evomerge.merge.rows import MEAN, ZERO, Group, seen_through

TENSOR = "model.embed_tokens.weight"
OWN = {  # of the rows: all have 0; base and a 1; a alone 2; a and b 3; nobody 4; 5 is padding
    "base": [0, 1, -1, -1, -1, -1],
    "a": [1, 0, 2, 3, -1, -1],
    "b": [0, -1, -1, 1, -1, -1],
}
STORED = {
    "base": [[1.0, 1.0], [2.0, 2.0]],
    "a": [[10.0, 10.0], [20.0, 20.0], [30.0, 30.0], [40.0, 40.0]],
    "b": [[100.0, 100.0], [200.0, 200.0]],
}


def group(base: str | None = "base") -> Group:
    own = {name: torch.tensor(rows) for name, rows in OWN.items()}
    return Group.of("union", tuple(OWN), base, own, numbers=range(5))


def opened(name: str, dtype: torch.dtype = torch.float32) -> Checkpoint:
    tensor = torch.tensor(STORED[name], dtype=dtype)
    return Checkpoint(
        name=name,
        folder=Path(name),
        config=LlamaConfig(vocab_size=len(tensor)),
        tensors={TENSOR: TensorHeader(tuple(tensor.shape), dtype)},
        _read={TENSOR: tensor}.__getitem__,
    )


def rows_of(name: str, filled: Group, **dtypes: torch.dtype) -> torch.Tensor:
    """Return one column of an input as the others fill it up."""
    known = {one: opened(one, dtypes.get(one, torch.float32)) for one in OWN}
    seen = seen_through(known[name], {TENSOR: filled}, known)
    found = seen.tensor(TENSOR)
    assert (tuple(found.shape), found.dtype) == (
        seen.tensors[TENSOR].shape,
        seen.tensors[TENSOR].dtype,
    )
    assert not seen.is_mapped(TENSOR)
    assert seen.key(TENSOR) != known[name].key(TENSOR)
    return found[:, 0]


def test_a_row_comes_from_its_only_owner_else_the_base_else_the_mean_else_zeros():
    assert group().donor.tolist()[:5] == [0, 0, 1, MEAN, ZERO]
    assert group(base=None).donor.tolist()[:5] == [MEAN, MEAN, 1, MEAN, ZERO]
    assert rows_of("base", group()).tolist() == pytest.approx([1, 2, 30, 120, 0, 30.6])
    assert rows_of("b", group()).tolist() == pytest.approx([100, 2, 30, 200, 0, 66.4])
    assert rows_of("b", group(base=None)).tolist()[1] == pytest.approx((2 + 10) / 2)


def test_what_was_filled_up_is_counted_by_the_rule():
    assert group().counts("base") == {
        "its only owner's row": 1,
        "the base's row": 1,
        "another model's row": 0,
        "the mean of its owners' rows": 1,
        "zeros": 1,
    }
    forced = group()
    forced.override(0, ("b", 1), force=True)
    assert forced.counts("base")["another model's row"] == 1


def test_an_override_is_for_those_who_lack_the_row_or_when_forced_for_all():
    wanted = group()
    wanted.override(3, ("a", 0), force=False)
    assert rows_of("base", wanted)[3] == 10
    assert rows_of("b", wanted)[3] == 200
    wanted.override(3, ("a", 0), force=True)
    assert rows_of("b", wanted)[3] == 10
    wanted.override(3, None, force=True)
    assert rows_of("a", wanted)[3] == 0


def test_the_dtype_holds_the_rows_of_all_lenders():
    half = rows_of("base", group(), base=torch.bfloat16, a=torch.bfloat16, b=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert rows_of("base", group(), base=torch.bfloat16).dtype == torch.float32
    assert group().lenders("base") == ("a", "b")
    only = group()
    only.override(3, ("a", 3), force=False)
    assert only.lenders("base") == ("a",)


def test_a_vocabulary_that_is_only_cut_is_a_view():
    own = {"a": torch.arange(3)}
    cut = Group.of("cut", ("a",), None, own, numbers=range(3))
    assert cut.all_have(2)
    known = {"a": opened("a")}
    seen = seen_through(known["a"], {TENSOR: cut}, known)
    assert seen.is_mapped(TENSOR)
    assert seen.tensor(TENSOR).data_ptr() == known["a"].tensor(TENSOR).data_ptr()
    assert seen.tensor(TENSOR)[:, 0].tolist() == [10, 20, 30]
