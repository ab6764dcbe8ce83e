from __future__ import annotations

from random import Random

from evomerge.zoo.jobs import practice


def test_a_copy_is_what_follows_the_colon() -> None:
    rng = Random(1)
    for _ in range(100):
        draft = practice.draw_copy(rng)
        assert draft.turns[0].split(": ", 1)[1] == draft.answers[0]


def test_a_lookup_is_answered_by_its_pair() -> None:
    rng = Random(2)
    for _ in range(100):
        draft = practice.draw_lookup(rng)
        pairs, question = draft.turns[0].split(". What is ")
        key = question.removesuffix("?")
        written = {f"{key}{mark}{draft.answers[0]}" for mark in ("=", ": ", " is ")}
        assert written & set(pairs.split("; "))
