from __future__ import annotations

from dataclasses import replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from evomerge.zoo.jobs import translation
from evomerge.zoo.jobs.translation import Clause, Phrase, norsu, tavi

phrases = st.builds(
    Phrase,
    st.sampled_from(translation.NOUNS),
    st.booleans(),
    st.none() | st.sampled_from(translation.ADJECTIVES),
)
clauses = st.builds(
    Clause,
    phrases,
    st.sampled_from(translation.VERBS),
    st.none() | phrases,
    st.sampled_from(["now", "past", "later"]),
    st.booleans(),
)


def test_word_order_and_agreement() -> None:
    clause = Clause(
        Phrase("dog", True, "big"), "sees", Phrase("fish", False, "old"), "past", negated=True
    )
    assert norsu(clause) == "granas kals ma doritn veto selin"
    assert tavi(clause) == "lo wuko mbui hebata teku pashim ru ne"
    other = replace(clause, subject=Phrase("king", False, "big"), tense="now", negated=False)
    assert norsu(other) == "grana rud dore veto selin"
    assert tavi(other) == "oshe mbuu hebata teku pashok"


@given(clauses, clauses)
def test_different_meanings_are_said_differently(one: Clause, other: Clause) -> None:
    assert (norsu(one) == norsu(other)) == (one == other)
    assert (tavi(one) == tavi(other)) == (one == other)


def test_both_directions_are_drawn_and_the_split_is_by_meaning() -> None:
    rng = Random(1)
    drafts = [translation.draw(rng) for _ in range(200)]
    towards = ["Norsu" in draft.turns[0] for draft in drafts]
    assert 60 < sum(towards) < 140
    assert all(draft.content.startswith("Clause(") for draft in drafts)


def test_no_two_words_are_alike() -> None:
    for language in (translation.NORSU, translation.TAVI):
        assert len(set(language.values())) == len(language)
        assert set(language) == {
            *translation.NOUNS,
            *translation.VERBS,
            *translation.ADJECTIVES,
        }
