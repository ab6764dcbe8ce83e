from __future__ import annotations

from evomerge.zoo.jobs import words


def test_no_word_stands_twice_in_a_list() -> None:
    cities = [city for each in words.CITIES.values() for city in each]
    for listed in (words.FIRST_NAMES, words.LAST_NAMES, words.COLOURS, cities):
        assert len(set(listed)) == len(listed)


def test_a_city_says_which_country_the_note_is_from() -> None:
    cities = [set(each) for each in words.CITIES.values()]
    assert len(set.union(*cities)) == sum(map(len, cities))
