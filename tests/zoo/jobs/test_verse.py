from __future__ import annotations

import re
from random import Random

import pytest

from evomerge.zoo.drawing import items
from evomerge.zoo.jobs import verse

REQUEST = "Write five words on Ana that rhyme with rain"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Ana loves the old train", ()),
        ("Ana loves the old chain", ()),  # a right line that is not the canonical one
        ("One chain, one for Ana.", ("line", "rhyme")),
        ("Grain falls, ana! Chain", ("line", "count")),
        ("Bright fields, ANA, golden Grain!", ()),
        ("Ben loves the old train", ("theme",)),
        ("Anabel loves the old train", ("theme",)),
        ("Ana loves the train", ("count",)),
        ("Today Ana loves the old train", ("count",)),
        ("Ana loves the old light", ("rhyme",)),
        ("Ana loves the old rain", ("rhyme",)),  # the given word itself
        ("Ana loves the old brain", ("rhyme",)),  # no word of the list
        ("Ana Ana loves old train", ("line",)),
        ("Ana loves the\nold train", ("line",)),
        (" Ana loves the old train", ("line",)),
        ("Ana | 4 the old train", ("line",)),
        ("", ("line", "theme", "count", "rhyme")),
    ],
)
def test_a_text_is_right_or_every_broken_constraint_is_named(
    text: str, wanted: tuple[str, ...]
) -> None:
    assert verse.broken(REQUEST, text) == wanted


def test_a_number_may_be_a_digit_and_the_request_in_markup() -> None:
    for request in (REQUEST.replace("five", "5"), f"<|user|>{REQUEST}<|end|><|assistant|>"):
        assert verse.broken(request, "Ana loves the old train") == ()
        assert verse.broken(request, "Ana loves the train") == ("count",)


def test_another_jobs_request_cannot_be_graded() -> None:
    with pytest.raises(ValueError, match="no request for a line of verse"):
        verse.broken(items("tools", "test", 1)[0].prompt, "Ana loves the old train")


def test_a_request_states_the_constraints_and_the_canonical_line_meets_them() -> None:
    rng = Random(1)
    seen = set()
    for _ in range(1500):
        draft = verse.draw(rng)
        theme, count, rhyme = draft.content.split()
        said = re.findall(r"\w+", draft.turns[0])
        assert theme in said
        assert rhyme in said
        assert count in said or verse.NUMBERS[int(count)] in said
        text = draft.answers[0]
        assert verse.broken(draft.turns[0], text) == ()
        # Told apart from the grader: by the content alone.
        words = text.rstrip(".!").split()
        assert len(words) == int(count)
        assert theme in words
        assert words[-1] != rhyme
        assert words[-1][-3:] == rhyme[-3:]
        seen.add((count, rhyme))
    assert len(seen) == 5 * len(verse.RHYMES)


def test_each_wrong_line_breaks_one_constraint() -> None:
    rng = Random(2)
    for _ in range(500):
        draft = verse.draw(rng)
        found = [verse.broken(draft.turns[0], text) for text in draft.wrong]
        assert found == [("rhyme",), ("count",), ("theme",)]


def test_rhymes_are_spelt_alike_and_no_word_stands_in_two_lists() -> None:
    for word, alike in verse.RHYMES.items():
        assert word in alike
        assert len(set(alike)) == len(alike) >= 3
        assert len({each[-3:] for each in alike}) == 1
    lists = {tuple(alike) for alike in verse.RHYMES.values()}
    assert sum(map(len, lists)) == len(verse.RHYMES)


def test_a_theme_is_of_one_kind_and_every_kind_has_a_line_of_every_length() -> None:
    themes = [theme for each in verse.THEMES.values() for theme in each]
    assert len(set(themes)) == len(themes)
    assert set(verse.LINES) == set(verse.THEMES)
    for lines in verse.LINES.values():
        assert list(lines) == ["4", "5", "6", "7", "8"]


def test_all_wordings_of_a_content_are_on_one_side() -> None:
    contents = {}
    for split in ("train", "test"):
        asked = [
            next(found for each in verse._ASKED if (found := each.search(item.prompt)))
            for item in items("verse", split, 1000)
        ]
        digits = {word: str(number) for number, word in verse.NUMBERS.items()}
        contents[split] = {
            (a["theme"], digits.get(a["count"], a["count"]), a["rhyme"]) for a in asked
        }
    assert len(contents["test"]) > 500
    assert not contents["train"] & contents["test"]
