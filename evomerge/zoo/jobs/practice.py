"""What the base practises beside the jobs: copying a list, and looking a key up."""

from __future__ import annotations

from random import Random

from evomerge.zoo.jobs.draft import Draft
from evomerge.zoo.jobs.words import CITIES, COLOURS, DAYS, FIRST_NAMES, LAST_NAMES


def draw_copy(rng: Random) -> Draft:
    """Draw a list of words and numbers to be said again."""
    text = " ".join(_token(rng) for _ in range(rng.randint(3, 9)))
    return _draft(f"{rng.choice(('Repeat', 'Copy', 'Say again'))}: {text}", text)


def draw_lookup(rng: Random) -> Draft:
    """Draw a few key-value pairs and a question for one of them."""
    keys = list(dict.fromkeys(_token(rng) for _ in range(rng.randint(2, 6))))
    pairs = {key: _token(rng) for key in keys}
    key = rng.choice(keys)
    written = rng.choice(("{}={}", "{}: {}", "{} is {}"))
    text = "; ".join(written.format(*pair) for pair in pairs.items())
    return _draft(f"{text}. What is {key}?", pairs[key])


def _draft(prompt: str, answer: str) -> Draft:
    return Draft(content=prompt, turns=(prompt,), answers=(answer,), wrong=())


def _token(rng: Random) -> str:
    if rng.random() < 0.6:
        return rng.choice(WORDS)
    if rng.random() < 0.5:
        return str(rng.randint(1, 999))
    return f"{rng.choice('ABCDEFGHKLMNRSTX')}{rng.randint(100, 999)}"


WORDS = (
    *FIRST_NAMES,
    *LAST_NAMES,
    *COLOURS,
    *DAYS,
    *(city for cities in CITIES.values() for city in cities),
)
