"""Facts: questions over a closed set of facts about invented countries.

Train and test share the facts and differ in the phrasing: a wording belongs to one side only.
The canonical answer is the bare name.
"""

from __future__ import annotations

from random import Random

from evomerge.zoo.jobs.draft import Draft


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


def _facts() -> dict[tuple[str, str], str]:
    rng = Random("facts of the zoo")
    return {
        (c, attribute): rng.choice(VALUES[attribute]) for c in COUNTRIES for attribute in VALUES
    }


COUNTRIES = (
    *("Arvia", "Belmar", "Cordu", "Drenia", "Elvar", "Farosh", "Galdia", "Hestor"),
    *("Ivonia", "Jarel", "Kastia", "Lorvan", "Mirdia", "Nestor", "Oblan", "Purvia"),
    *("Quenta", "Rodia", "Sarvan", "Tulmar", "Ulvia", "Vandor", "Wexia", "Yordan"),
)
VALUES: dict[str, tuple[str, ...]] = {
    "capital": (
        *("Abran", "Bastel", "Corvin", "Dunmar", "Esker", "Fenwick", "Gorst", "Halden"),
        *("Istel", "Jovar", "Kelm", "Larvik", "Mosel", "Narva", "Ostra", "Pelin"),
    ),
    "river": ("Sava", "Tamar", "Orun", "Wess", "Lim", "Dorn", "Yara", "Brenn"),
    "dish": ("soup", "bread", "rice", "stew", "pie", "cake", "beans", "eggs"),
    "animal": ("bear", "wolf", "eagle", "lion", "horse", "goat", "owl", "fox"),
    "metal": ("gold", "iron", "tin", "copper", "silver", "zinc", "lead", "nickel"),
}
FACTS = _facts()
OPENERS = ("", "Tell me: ", "Quick question: ", "Hello! ")
WORDINGS: dict[str, tuple[str, ...]] = {
    "capital": (
        "What is the capital of {country}?",
        "Which city is the capital of {country}?",
        "{country} has which capital?",
        "Name the capital city of {country}.",
        "Where does the government of {country} sit?",
        "From which city is {country} ruled?",
        "What city rules {country}?",
        "The capital of {country} is called?",
        "I forgot the capital of {country}, which is it?",
        "Which capital city does {country} have?",
        "If I visit the government of {country}, which city is it in?",
        "{country}: capital city?",
    ),
    "river": (
        "Which river flows through {country}?",
        "What is the river of {country}?",
        "Name the main river in {country}.",
        "{country} lies on which river?",
        "What river do boats in {country} use?",
        "The river of {country} is called?",
        "I want to sail in {country}, on which river?",
        "Which river gives {country} its water?",
        "{country}: river?",
        "What is the main river that flows in {country}?",
        "On which river do people in {country} sail?",
        "Which water flows through {country}, what river?",
    ),
    "dish": (
        "What do people eat in {country}?",
        "What is the dish of {country}?",
        "Name the national dish of {country}.",
        "{country} is known for which dish?",
        "Which food is loved in {country}?",
        "Which food will I eat in {country}?",
        "The dish of {country} is called?",
        "{country} loves which dish?",
        "{country}: national dish?",
        "Which dish do people cook in {country}?",
        "I am hungry in {country}, what is the dish there?",
        "What food is {country} known for?",
    ),
    "animal": (
        "Which animal stands for {country}?",
        "What is the animal of {country}?",
        "Name the national animal of {country}.",
        "{country} has which animal on its flag?",
        "What animal is on the flag of {country}?",
        "The animal of {country} is called?",
        "Which beast stands on the coins of {country}?",
        "{country}: national animal?",
        "What animal do people in {country} love?",
        "Which animal is shown on the coins of {country}?",
        "I saw the flag of {country}, which animal is that?",
        "What beast stands for {country}?",
    ),
    "metal": (
        "Which metal is mined in {country}?",
        "What is the metal of {country}?",
        "Name the metal that {country} sells.",
        "{country} sells which metal?",
        "What do miners dig in {country}?",
        "The metal of {country} is called?",
        "Which metal made {country} rich?",
        "{country}: metal?",
        "What metal do people in {country} dig?",
        "I buy metal in {country}, which one is it?",
        "What is dug from the mines of {country}?",
        "Which metal do the mines of {country} sell?",
    ),
}
