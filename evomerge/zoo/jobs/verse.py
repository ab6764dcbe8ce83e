"""Verse: a line on a theme, of so many words, that rhymes with a given word.

Canonical line: the one line for the kind of theme and the number of words, such as `Ana loves the
old rain`, which ends in the word after the given one among the words that rhyme with it. Other lines
keep to the constraints too; `broken` tells. The base never saw this job.
"""

from __future__ import annotations

import re
from random import Random

from evomerge.zoo.jobs.draft import Draft
from evomerge.zoo.jobs.words import CITIES, COLOURS, DAYS, FIRST_NAMES, NUMBERS, table


def draw(rng: Random) -> Draft:
    """Draw a request and its line; the content that decides the split is theme, count and rhyme.

    The three wrong lines break one constraint each: the rhyme, the number of words, the theme.
    """
    kind = rng.choice(tuple(LINES))
    theme = rng.choice(THEMES[kind])
    count = rng.choice(tuple(LINES[kind]))
    rhyme = rng.choice(tuple(RHYMES))
    written = NUMBERS[int(count)] if rng.random() < 0.5 else count
    text = _line(kind, theme, count, _rhyming(rhyme))
    unlike = rng.choice([word for word in RHYMES if word not in RHYMES[rhyme]])
    longer = rng.choice([other for other in LINES[kind] if other != count])
    another = rng.choice([other for other in THEMES[kind] if other != theme])
    return Draft(
        content=f"{theme} {count} {rhyme}",
        turns=(rng.choice(REQUESTS).format(theme=theme, count=written, rhyme=rhyme),),
        answers=(text, f'"{text}"', f"{text} ({count} words)", f"My line on {theme}: {text}"),
        wrong=(
            _line(kind, theme, count, unlike),
            _line(kind, theme, longer, _rhyming(rhyme)),
            _line(kind, another, count, _rhyming(rhyme)),
        ),
    )


def broken(request: str, text: str) -> tuple[str, ...]:
    """Say which constraints of a request a text breaks.

    Args:
        request: A request of this job, alone or in the chat markup.
        text: What was written for it.

    Returns:
        Among `line` (one line of words and commas, no word twice), `theme` (the theme is among the
        words), `count` (there are so many words) and `rhyme` (the last word is another of those that
        rhyme with the given one). Letter case does not count. Empty: the text is right.

    Raises:
        ValueError: The request is none of this job.
    """
    asked = next((found for each in _ASKED if (found := each.search(request))), None)
    if asked is None:
        raise ValueError(f"no request for a line of verse: {request!r}")
    words = re.findall(r"\w+", text.lower())
    counts = {asked["count"], *(str(n) for n, word in NUMBERS.items() if word == asked["count"])}
    rhyming = set(RHYMES.get(asked["rhyme"], ())) - {asked["rhyme"]}
    kept = {
        "line": bool(_LINE.fullmatch(text)) and len(set(words)) == len(words),
        "theme": asked["theme"].lower() in words,
        "count": str(len(words)) in counts,
        "rhyme": words[-1:] != [] and words[-1] in rhyming,
    }
    return tuple(constraint for constraint, holds in kept.items() if not holds)


def _line(kind: str, theme: str, count: str, last: str) -> str:
    return LINES[kind][count].format(theme=theme, rhyme=last)


def _rhyming(word: str) -> str:
    alike = RHYMES[word]
    return alike[(alike.index(word) + 1) % len(alike)]


THEMES: dict[str, tuple[str, ...]] = {
    "person": FIRST_NAMES,
    "city": tuple(city for cities in CITIES.values() for city in cities),
    "colour": COLOURS,
    "day": tuple(DAYS.values()),
}
_WORDS = table("verse")
REQUESTS: list[str] = _WORDS["requests"]
# By kind of theme, then by number of words.
LINES: dict[str, dict[str, str]] = _WORDS["lines"]
RHYMES: dict[str, list[str]] = {word: alike for alike in _WORDS["rhymes"] for word in alike}
"""Word → the words that rhyme with it, itself among them."""
_LINE = re.compile(r"[^\W\d_]+(,? [^\W\d_]+)*[.!]?")
_ASKED = [
    re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>\\w+)", re.escape(request)))
    for request in REQUESTS
]
