from __future__ import annotations

from collections.abc import Callable

import pytest

from evomerge.candidate.trial import Entry, Job, Outcome
from evomerge.store import Store

Make = Callable[..., Entry]


def test_the_last_that_was_chosen_is_the_one_winner(
    store: Store, candidate: Make, scored: Outcome
) -> None:
    assert store.winner is None
    for number in (3, 1):
        store.record(Job(candidate(number), "holdout"), scored)
        store.choose(candidate(number, 0.1 + 0.2), f"choice {number}")
    store.choose(candidate(1), "again")
    assert store.winner is not None
    assert store.winner.entry == candidate(1, 0.1 + 0.2)
    assert store.winner.how == "choice 1"
    assert [(one.key, one.kind) for one in store.evaluations()] == [
        ("trial:3", "finalist"),
        ("trial:1", "winner"),
    ]


def test_it_is_on_the_disk(store: Store, candidate: Make) -> None:
    store.choose(candidate(2), "the best")
    with Store.open(store.folder, write=False) as reader:
        assert reader.winner == store.winner


def test_readings_of_holdout_are_counted_once_a_trial(
    store: Store, candidate: Make, scored: Outcome, failed: Outcome
) -> None:
    assert store.holdout_readings == 0
    parent = Entry("one", candidate(0).candidate, role="expert")
    store.record(Job(parent, "holdout"), scored)
    store.record(Job(candidate(0), "select"), scored)
    assert store.holdout_readings == 0
    for number, outcome in ((0, scored), (1, failed), (0, scored)):
        store.record(Job(candidate(number), "holdout"), outcome)
    assert store.holdout_readings == 2


def test_what_is_made_after_the_search_can_be_chosen(
    store: Store, candidate: Make, scored: Outcome
) -> None:
    first, second = (
        Entry("with tools", candidate(number).candidate, role="finalist") for number in (0, 1)
    )
    store.choose(candidate(1), "the best")
    for entry in (first, second):
        store.record(Job(entry, "holdout"), scored)
        store.choose(entry, f"it is {entry.candidate.text()}")
        assert store.winner is not None
        assert store.winner.entry == entry
        assert [(one.key, one.kind) for one in store.evaluations()] == [
            ("finalist:with tools", "winner")
        ]
    assert store.winner.how == f"it is {second.candidate.text()}"
    assert store.holdout_readings == 1


def test_only_a_finalist_can_be_chosen(store: Store, candidate: Make, scored: Outcome) -> None:
    with pytest.raises(ValueError, match="ties is not a trial"):
        store.choose(Entry("ties", candidate(0).candidate, role="baseline"), "the best")
