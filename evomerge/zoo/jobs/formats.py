"""Formats: a small record or note into a summary, a paraphrase or an outline, as is asked.

Canonical answers for one note: the summary `Ana: 3 hats, Friday`, the paraphrase `Ana will get 3 red
hats in Bonn on Friday.`, and an outline, a line a point: `- Ana`, `- 3 red hats`, `- Bonn`, `- Friday`.
The base never saw this job: its specialist joins the family later.
"""

from __future__ import annotations

from random import Random

from evomerge.zoo.jobs.draft import Draft
from evomerge.zoo.jobs.words import CITIES, COLOURS, DAYS, FIRST_NAMES, NUMBERS, table

Record = dict[str, str]


def draw(rng: Random) -> Draft:
    """Draw a note and its rendering; the content that decides the split is the record."""
    kind = rng.choice(tuple(KINDS))
    record = _record(rng, kind)
    form = rng.choice(tuple(REQUESTS))
    text = _written(FORMS[form][kind], record)
    return Draft(
        content=f"{kind} {record}",
        turns=(f"{rng.choice(REQUESTS[form])}: {_note(rng, kind, record)}",),
        answers=(text, f"{form}: {text}", f'"{text}"', f"Here is the {form}.\n{text}"),
        wrong=_wrong(rng, form, kind, record),
    )


def _record(rng: Random, kind: str) -> Record:
    """Draw a record, no value twice: a trip leads somewhere else."""
    record: Record = {}
    for field in KINDS[kind]:
        if field not in OPTIONAL or rng.random() < 0.7:
            record[field] = _new(rng, field, record)
    return record


def _new(rng: Random, field: str, record: Record) -> str:
    """Draw one of a field's values that the record has nowhere."""
    places = PLACES[field]
    taken = sorted({places[value] for value in record.values() if value in places})
    place = rng.choice(range(len(places) - len(taken)))
    for each in taken:
        place += each <= place
    return VALUES[field][place]


def _note(rng: Random, kind: str, record: Record) -> str:
    if rng.random() < 0.35:
        return _as_record(rng, record)
    said = dict(record)
    if "count" in said and rng.random() < 0.5:
        said["count"] = NUMBERS[int(said["count"])]
    return _written(rng.choice(NOTES[kind]), said) + rng.choice(ASIDES)


def _as_record(rng: Random, record: Record) -> str:
    mark = rng.choice((": ", " is "))
    return "; ".join(f"{field}{mark}{value}" for field, value in record.items())


def _written(clauses: list[str], record: Record) -> str:
    """Join the clauses whose fields the record has."""
    missing = [f"{{{field}}}" for field in OPTIONAL if field not in record]
    kept = [clause for clause in clauses if not any(field in clause for field in missing)]
    return "".join(kept).format(**record)


def _wrong(rng: Random, form: str, kind: str, record: Record) -> tuple[str, ...]:
    """The right record in another form, then other records in the right form."""
    others = [record | {field: _new(rng, field, record)} for field in record]
    if kind == "trip":
        others.append(record | {"from": record["to"], "to": record["from"]})
    rng.shuffle(others)
    another = rng.choice([each for each in FORMS if each != form])
    texts = [_written(FORMS[form][kind], other) for other in others]
    right = _written(FORMS[form][kind], record)
    unlike = dict.fromkeys([_written(FORMS[another][kind], record), *texts])
    return tuple(text for text in unlike if text != right)


KINDS = {
    "order": ("who", "count", "colour", "thing", "city", "day"),
    "trip": ("who", "from", "to", "ticket", "day"),
}
OPTIONAL = ("colour",)
_CITIES = tuple(city for cities in CITIES.values() for city in cities)
VALUES: dict[str, tuple[str, ...]] = {
    "who": FIRST_NAMES,
    "day": tuple(DAYS.values()),
    "city": _CITIES,
    "from": _CITIES,
    "to": _CITIES,
    "count": tuple(str(number) for number in NUMBERS),
    "thing": ("mugs", "hats", "lamps", "chairs", "shirts", "clocks", "bags", "trays"),
    "colour": COLOURS,
    "ticket": tuple(f"{letter}{number}" for letter in "ABCDEFGH" for number in range(100, 1000)),
}
PLACES = {field: {value: n for n, value in enumerate(own)} for field, own in VALUES.items()}
_WORDS = table("formats")
REQUESTS: dict[str, list[str]] = _WORDS["requests"]
FORMS: dict[str, dict[str, list[str]]] = _WORDS["forms"]
NOTES: dict[str, list[list[str]]] = _WORDS["notes"]
ASIDES: list[str] = _WORDS["asides"]
