from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from evomerge.candidate import Merge
from evomerge.candidate.trial import Entry
from evomerge.search.selection import pick_finalists
from evomerge.space import Baseline


def recipe(weight: float) -> Merge:
    return Merge("linear", ("/m/one",), fixed={"weight": weight})


def content(made: Any) -> float:
    return float(made.fixed["weight"])


def trials(*weights: float) -> Iterator[Entry]:
    for number, weight in enumerate(weights):
        yield Entry(f"trial {number}", recipe(weight), number)


def test_copies_take_one_place_and_those_of_naive_merges_none() -> None:
    known = [
        Baseline("one", "expert", recipe(1.0)),
        Baseline("ties", "baseline", recipe(0.3)),
        Baseline("also", "baseline", recipe(0.3)),
    ]
    chosen, copies = pick_finalists(
        trials(0.3, 0.5, 0.5, 0.3, 0.7, 0.5, 1.0, 0.9), 3, known, content
    )
    assert [one.number for one in chosen] == [1, 4, 7]
    assert {key: one.number for key, one in copies.items()} == {
        "baseline:ties": 0,
        "expert:one": 6,
    }


def test_no_more_trials_are_read_than_needed() -> None:
    in_turn = trials(0.1, 0.2, 0.3)
    assert len(pick_finalists(in_turn, 2, [], content)[0]) == 2
    assert len(list(in_turn)) <= 1
