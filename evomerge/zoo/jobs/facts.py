"""Facts: questions over a closed set of facts about invented countries.

Train and test share the facts and differ in the phrasing: a wording belongs to one side only.
The canonical answer is the bare name.
"""

from __future__ import annotations

from random import Random

from evomerge.zoo.jobs.draft import Draft
from evomerge.zoo.jobs.words import table


def draw(rng: Random) -> Draft:
    """Draw a question and its answer; the content that decides the split is the wording."""
    country = rng.choice(COUNTRIES)
    attribute = rng.choice(tuple(WORDINGS))
    wording = rng.choice(WORDINGS[attribute])
    value = FACTS[country, attribute]
    return Draft(
        content=f"phrasing: {wording}",
        turns=(rng.choice(OPENERS) + wording.format(country=country),),
        answers=(
            value,
            f"It is {value}.",
            f"{country}: {value}",
            f"The {attribute} is {value}.",
        ),
        wrong=tuple(rng.sample([v for v in VALUES[attribute] if v != value], 3)),
    )


_WORDS = table("facts")
COUNTRIES: list[str] = _WORDS["countries"]
OPENERS: list[str] = _WORDS["openers"]
VALUES: dict[str, list[str]] = _WORDS["values"]
WORDINGS: dict[str, list[str]] = _WORDS["wordings"]


def _facts() -> dict[tuple[str, str], str]:
    rng = Random("facts of the zoo")
    return {
        (country, attribute): rng.choice(VALUES[attribute])
        for country in COUNTRIES
        for attribute in VALUES
    }


FACTS = _facts()
