from __future__ import annotations

import re
from random import Random

from evomerge.zoo.jobs import extraction
from evomerge.zoo.jobs.words import CITIES

RECORD = re.compile(
    r"\w+, \w+ \| (\w+|-) \| ([A-Z]\d{3}|-) \| (\w+ \d+, \w+|-) \| 20[12]\d-\d\d-\d\d"
)


def test_every_record_is_canonical() -> None:
    rng = Random(1)
    for _ in range(500):
        draft = extraction.draw(rng)
        for text in (draft.answers[0], *draft.wrong):
            assert RECORD.fullmatch(text), text


def test_numbers_alone_are_read_by_the_country_of_the_note() -> None:
    rng = Random(2)
    american = european = 0
    for _ in range(4000):
        draft = extraction.draw(rng)
        note, date = draft.turns[0], draft.answers[0].rsplit(" | ", 1)[1]
        found = re.search(r"(?<!\d)(\d{1,2})[/.-](\d{1,2})[/.-](\d{4})", note)
        if not found or not (city := re.search(r", (\w+) \| 20", draft.answers[0])):
            continue
        first, second, year = map(int, found.groups())
        in_america = city[1] in CITIES["us"]
        month, day = (first, second) if in_america else (second, first)
        assert date == f"{year}-{month:02d}-{day:02d}", note
        american += in_america
        european += not in_america
    assert american > 100
    assert european > 400


def test_an_ambiguous_date_comes_with_the_other_reading_as_a_wrong_answer() -> None:
    rng = Random(3)
    seen = 0
    for _ in range(300):
        draft = extraction.draw(rng)
        year, month, day = draft.answers[0].rsplit(" | ", 1)[1].split("-")
        if int(day) <= 12 and day != month:
            assert draft.wrong[0].endswith(f"{year}-{day}-{month}")
            seen += 1
    assert seen > 50


def test_what_the_note_does_not_say_is_a_dash() -> None:
    rng = Random(4)
    missing = 0
    for _ in range(300):
        draft = extraction.draw(rng)
        identifier = draft.answers[0].split(" | ")[2]
        plain = re.sub(r"[-/ ]", "", draft.turns[0])
        assert identifier == "-" or identifier in plain
        missing += identifier == "-"
    assert 10 < missing < 100
