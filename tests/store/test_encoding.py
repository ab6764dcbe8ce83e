from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evomerge.candidate import Coefficients, Merge
from evomerge.candidate.timing import Timing
from evomerge.candidate.trial import Estimate, Failure, FailureKind, Outcome, Pruned, TaskScores
from evomerge.errors import ResultsError
from evomerge.store.encoding import (
    outcome_from_json,
    outcome_to_json,
    values_from_json,
    values_to_json,
)

plain = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False)
values = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
        | st.frozensets(st.integers(), max_size=3)
        | st.sets(st.text(), max_size=3)
    ),
    max_leaves=8,
)


def there_and_back(outcome: Outcome, known: Sequence[str] = ()) -> Outcome:
    written = json.dumps(outcome_to_json(outcome, lambda task: known))
    values = json.dumps(values_to_json(outcome))
    return outcome_from_json(
        json.loads(written), lambda task: known, lambda: values_from_json(json.loads(values))
    )


def stored(items: Sequence[Any]) -> tuple[Any, ...]:
    """Per-item values as they come back."""
    ids = tuple(map(str, range(len(items))))
    scores = TaskScores(ids, {"acc": tuple(items)}, {})
    return there_and_back(Outcome({"t": scores})).scores["t"].metrics["acc"]


def test_an_outcome_comes_back(scored: Outcome, failed: Outcome) -> None:
    for outcome in (scored, failed, replace(scored, pruned=Pruned("worse", 2, 1))):
        assert there_and_back(outcome) == outcome
    failure = Failure(FailureKind.TASK, "KeyError", "Traceback\n  \udce4")
    assert there_and_back(Outcome(failure=failure)).failure.trace == failure.trace  # type: ignore[union-attr]


@pytest.mark.parametrize("items", [("a", "b", "c"), ("c", "a"), ("a", "x"), ()])
def test_known_ids_are_not_written_again(items: tuple[str, ...]) -> None:
    outcome = Outcome({"t": TaskScores(items, {"acc": (0.5,) * len(items)}, {})})
    assert there_and_back(outcome, "abc") == outcome
    written = json.dumps(outcome_to_json(outcome, lambda task: "abc"))
    assert ('"a"' in written) == ("x" in items)


@given(st.lists(values, max_size=5))
def test_what_goes_in_comes_out(items: list[Any]) -> None:
    found = stored(items)
    assert repr(found) == repr(tuple(items)) or found == tuple(items)
    assert [type(item) for item in found] == [type(item) for item in items]


@given(st.lists(st.floats() | st.sampled_from([0.0, 1.0]), max_size=20))
@example([0.0, -0.0, 1.0])
@example([0.0, 1.0] * 5)
def test_floats_keep_every_bit(items: list[float]) -> None:
    for before, after in zip(items, stored(items), strict=True):
        if math.isnan(before):
            assert math.isnan(after)
        else:
            assert struct.pack("d", before) == struct.pack("d", after)


def test_numpy_values_keep_their_meaning() -> None:
    array = np.array([[0.1, 0.2]], dtype=np.float32)
    items = [np.float32(0.1), np.int64(3), np.bool_(True), (1, array)]
    found = stored(items)
    assert found[:3] == (float(np.float32(0.1)), 3, True)
    assert found[3][1].dtype == array.dtype
    assert found[3][1].tolist() == array.tolist()


def test_what_is_unknown_is_refused() -> None:
    with pytest.raises(ResultsError, match="of type object cannot be stored"):
        stored([object()])


def test_answers_come_back() -> None:
    scores = TaskScores(("a", "b"), {"acc": (1.0, 0.0)}, {"acc": Estimate(0.5)}, answers=("x", "ü"))
    assert there_and_back(Outcome({"t": scores})).scores["t"].answers == ("x", "ü")


def test_what_was_learnt_and_who_answered_come_back() -> None:
    table = Coefficients({"t": np.ones((2, 3), np.float32)})
    learnt = Merge("linear", ("/a", "/b"), coefficients=table)
    outcome = Outcome(candidate=learnt, routes={"t": (0, 2, 1)}, read={"t": (5, 0, 9)})
    written = json.dumps(outcome_to_json(outcome, lambda task: ()))
    arrays = learnt.arrays().__getitem__
    found = outcome_from_json(json.loads(written), lambda task: (), dict, arrays)
    assert found == outcome
    assert found.candidate.coefficients == table  # type: ignore[union-attr]
    assert not {"candidate", "routes", "read"} & outcome_to_json(Outcome(), lambda task: ()).keys()


def test_how_fast_a_model_was_comes_back(scored: Outcome) -> None:
    timed = replace(scored, timing=Timing(12.5, 10.0, 1.25, 0.03, 15))
    assert there_and_back(timed, "") == timed
    assert there_and_back(scored, "").timing is None
