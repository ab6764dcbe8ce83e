from __future__ import annotations

import re
from random import Random

from evomerge.zoo.jobs import dialogue

ORDER = re.compile(r"([2-9]|-) \w+ \| (\w+|-) \| (\w+|-) \| (\w+|-)")


def test_a_conversation_has_two_changes_or_more_turns_and_ends_with_a_question() -> None:
    rng = Random(1)
    lengths = set()
    for _ in range(200):
        draft = dialogue.draw(rng)
        lengths.add(len(draft.turns))
        assert all(reply in dialogue.REPLIES for reply in draft.turns[1::2])
    assert lengths == {5, 7, 9}


def test_the_last_word_on_a_slot_counts() -> None:
    rng = Random(2)
    corrected = 0
    for _ in range(2000):
        draft = dialogue.draw(rng)
        order = draft.answers[0]
        last = draft.turns[-3]
        found = re.fullmatch(r"(?:Change the colour to|Make the colour) (\w+)\.", last)
        if found and "|" in order:
            assert order.split(" | ")[1] == found[1]
            corrected += 1
        if last == "Forget the colour." and "|" in order:
            assert order.split(" | ")[1] == "-"
            corrected += 1
    assert corrected > 30


def test_answers_are_whole_orders_or_one_slot() -> None:
    rng = Random(3)
    values = {value for values in dialogue.VALUES.values() for value in values}
    orders = 0
    for _ in range(300):
        draft = dialogue.draw(rng)
        for text in (draft.answers[0], *draft.wrong):
            assert ORDER.fullmatch(text) or text in values
        orders += "|" in draft.answers[0]
    assert 150 < orders < 290
