"""Closed lists of words that several jobs share, so that a small vocabulary holds them all."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

FIRST_NAMES = (
    *("Ana", "Ben", "Carla", "David", "Emma", "Felix", "Greta", "Hugo"),
    *("Ines", "Jonas", "Karl", "Laura", "Marc", "Nina", "Oscar", "Paula"),
)
LAST_NAMES = (
    *("Adler", "Blanc", "Costa", "Duval", "Ellis", "Fuchs", "Grant", "Haas"),
    *("Ibarra", "Jones", "Keller", "Lopez", "Moreau", "Novak", "Ortega", "Price"),
)
CITIES = {
    "us": ("Boston", "Denver", "Austin"),
    "uk": ("Leeds", "York", "Bristol"),
    "de": ("Bonn", "Berlin", "Bremen"),
    "fr": ("Lyon", "Paris", "Nantes"),
    "es": ("Madrid", "Bilbao", "Toledo"),
}
DAYS = {
    "mon": "Monday",
    "tue": "Tuesday",
    "wed": "Wednesday",
    "thu": "Thursday",
    "fri": "Friday",
    "sat": "Saturday",
    "sun": "Sunday",
}
COLOURS = ("red", "blue", "green", "black", "white", "yellow", "grey", "pink")
NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine"}


def table(job: str) -> dict[str, Any]:
    """Return a job's words and wordings: `JOB.toml` beside its generator."""
    return tomllib.loads((Path(__file__).parent / f"{job}.toml").read_text(encoding="utf-8"))
