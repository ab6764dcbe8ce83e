from __future__ import annotations

import re
from itertools import islice
from random import Random

import pytest

from evomerge.zoo.drawing import drafts
from evomerge.zoo.jobs import formats

SHAPES = {
    "summary": r"\w+: (\d \w+|\w+ to \w+), \w+day",
    "paraphrase": r"\w+ will (get \d [\w ]+ in \w+|go from \w+ to \w+ with [A-H]\d{3}) on \w+day\.",
    "outline": r"- \w+\n- [\w ]+\n- \w+\n- \w+day",
}


def test_the_instruction_names_the_form() -> None:
    rng = Random(1)
    seen = set()
    for _ in range(600):
        draft = formats.draw(rng)
        request = draft.turns[0].split(": ", 1)[0]
        form = next(each for each, words in formats.REQUESTS.items() if request in words)
        assert re.fullmatch(SHAPES[form], draft.answers[0]), draft
        seen.add((request, " to " in draft.answers[0]))
    assert len(seen) == 12


def test_the_first_wrong_answer_is_in_another_form_and_the_others_in_the_right_one() -> None:
    rng = Random(2)
    for _ in range(300):
        draft = formats.draw(rng)
        (shape,) = (each for each in SHAPES.values() if re.fullmatch(each, draft.answers[0]))
        assert not re.fullmatch(shape, draft.wrong[0])
        assert all(re.fullmatch(shape, text) for text in draft.wrong[1:])


@pytest.mark.parametrize("form", formats.FORMS)
def test_forms_of_one_record(form: str) -> None:
    order = {"who": "Ana", "count": "3", "thing": "hats", "city": "Bonn", "day": "Friday"}
    trip = {"who": "Ben", "from": "Bonn", "to": "York", "ticket": "B417", "day": "Monday"}
    written = {
        "summary": ("Ana: 3 hats, Friday", "Ben: Bonn to York, Monday"),
        "paraphrase": (
            "Ana will get 3 hats in Bonn on Friday.",
            "Ben will go from Bonn to York with B417 on Monday.",
        ),
        "outline": (
            "- Ana\n- 3 hats\n- Bonn\n- Friday",
            "- Ben\n- Bonn to York\n- B417\n- Monday",
        ),
    }[form]
    assert formats._written(formats.FORMS[form]["order"], order) == written[0]
    assert formats._written(formats.FORMS[form]["trip"], trip) == written[1]
    if form != "summary":
        coloured = formats._written(formats.FORMS[form]["order"], order | {"colour": "red"})
        assert coloured == written[0].replace("3 hats", "3 red hats")


def test_a_note_says_every_field_and_only_its_own() -> None:
    rng = Random(3)
    for _ in range(300):
        draft = formats.draw(rng)
        kind, record = draft.content.split(" ", 1)
        said = dict(re.findall(r"'(\w+)': '(\w+)'", record))
        for field, value in said.items():
            words = {value, formats.NUMBERS[int(value)]} if field == "count" else {value}
            assert words & set(re.findall(r"\w+", draft.turns[0])), draft
        colours = set(formats.COLOURS) & set(re.findall(r"\w+", draft.turns[0]))
        assert colours == ({said["colour"]} if "colour" in said else set())
        assert kind in formats.KINDS


def test_all_wordings_and_forms_of_a_record_are_on_one_side(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Few values, so that every record is drawn in many wordings and forms.
    for field, values in formats.VALUES.items():
        monkeypatch.setitem(formats.VALUES, field, values[:3])
        places = {value: place for place, value in enumerate(values[:3])}
        monkeypatch.setitem(formats.PLACES, field, places)
    digits = {word: str(number) for number, word in formats.NUMBERS.items()}
    known = {value for values in formats.VALUES.values() for value in values}
    found: dict[str, set[tuple[str, ...]]] = {}
    for split in ("train", "test"):
        drawn = islice(drafts("formats", split, Random(split)), 1500)
        words = [re.findall(r"\w+", draft.turns[0]) for draft in drawn]
        # Of a trip, from where to where is lost: only orders are told by their words alone.
        found[split] = {
            tuple(sorted(known & {digits.get(word, word) for word in each}))
            for each in words
            if set(each) & set(formats.VALUES["thing"])
        }
    assert len(found["train"]) > 100
    assert len(found["test"]) > 30
    assert not found["train"] & found["test"]
