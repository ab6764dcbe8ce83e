from __future__ import annotations

from random import Random

import pytest

from evomerge.zoo.drawing import side
from evomerge.zoo.jobs import facts


@pytest.mark.parametrize("attribute", facts.WORDINGS)
def test_wordings_are_held_out_for_every_attribute(attribute: str) -> None:
    wordings = facts.WORDINGS[attribute]
    held_out = [wording for wording in wordings if side(f"phrasing: {wording}") == "test"]
    assert len(held_out) >= 2
    assert len(wordings) - len(held_out) >= 8


def test_a_fact_is_the_same_however_it_is_asked() -> None:
    rng = Random(1)
    answers: dict[tuple[str, str], set[str]] = {}
    for _ in range(4000):
        draft = facts.draw(rng)
        country = next(c for c in facts.COUNTRIES if c in draft.turns[0])
        attribute = next(
            a for a, w in facts.WORDINGS.items() if draft.content.removeprefix("phrasing: ") in w
        )
        answers.setdefault((country, attribute), set()).add(draft.answers[0])
    assert len(answers) == len(facts.FACTS)
    assert all(found == {facts.FACTS[key]} for key, found in answers.items())


def test_no_wording_belongs_to_two_attributes() -> None:
    wordings = [wording for each in facts.WORDINGS.values() for wording in each]
    assert len(set(wordings)) == len(wordings)
    assert all("{country}" in wording for wording in wordings)
