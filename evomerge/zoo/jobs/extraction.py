"""Extraction: a note about somebody's certificate, in one of five languages, into one record.

Canonical record: `Lopez, Ana | weld | K417 | Elm 12, Bonn | 2021-03-04`, with `-` for what the note
does not say. A date such as 3/4/2021 is March 4th in an American note and April 3rd in the others.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from random import Random
from typing import TypeVar

from evomerge.zoo.jobs.draft import Draft
from evomerge.zoo.jobs.words import CITIES, FIRST_NAMES, LAST_NAMES, table

MISSING = "-"
T = TypeVar("T")


@dataclass(frozen=True)
class Record:
    """What a note says; an optional field is empty where the note does not say it."""

    first: str
    last: str
    certificate: str
    identifier: str
    street: str
    city: str
    year: int
    month: int
    day: int


def draw(rng: Random) -> Draft:
    """Draw a note and its record; the content that decides the split is the record."""
    locale = rng.choice(tuple(CITIES))
    record = _record(rng, locale)
    return Draft(
        content=repr(astuple(record)),
        turns=(_note(rng, locale, record),),
        answers=(_canonical(record), _reversed(record), _prose(record), _fields(record)),
        wrong=_wrong(rng, locale, record),
    )


def _record(rng: Random, locale: str) -> Record:
    with_address = rng.random() < 0.85
    return Record(
        first=rng.choice(FIRST_NAMES),
        last=rng.choice(LAST_NAMES),
        certificate=rng.choice(CERTIFICATES) if rng.random() < 0.9 else "",
        identifier=_identifier(rng) if rng.random() < 0.85 else "",
        street=f"{rng.choice(STREETS)} {rng.randint(1, 99)}" if with_address else "",
        city=rng.choice(CITIES[locale]) if with_address else "",
        year=rng.randint(2010, 2029),
        month=rng.randint(1, 12),
        day=rng.randint(1, 28),
    )


def _identifier(rng: Random) -> str:
    return f"{rng.choice('ABCDEFGHKLMNRSTX')}{rng.randint(100, 999)}"


def _canonical(record: Record) -> str:
    home = f"{record.street}, {record.city}" if record.street else MISSING
    return (
        f"{record.last}, {record.first} | {record.certificate or MISSING} | "
        f"{record.identifier or MISSING} | {home} | {_iso(record)}"
    )


def _reversed(record: Record) -> str:
    home = f"{record.city} / {record.street}" if record.street else "none"
    return (
        f"{_iso(record)} / {home} / {record.identifier or 'none'} / "
        f"{record.certificate or 'none'} / {record.first} {record.last}"
    )


def _prose(record: Record) -> str:
    parts = [f"{record.first} {record.last}"]
    if record.certificate:
        parts.append(f"certificate {record.certificate}")
    if record.identifier:
        parts.append(f"number {record.identifier}")
    if record.street:
        parts.append(f"at {record.street} in {record.city}")
    return f"{', '.join(parts)}, on {_iso(record)}."


def _fields(record: Record) -> str:
    home = f"{record.street}, {record.city}" if record.street else ""
    return (
        f"id={record.identifier}; name={record.first} {record.last}; date={_iso(record)}; "
        f"home={home}; type={record.certificate}"
    )


def _iso(record: Record) -> str:
    return f"{record.year}-{record.month:02d}-{record.day:02d}"


def _wrong(rng: Random, locale: str, record: Record) -> tuple[str, ...]:
    others = [
        replace(record, last=_other(rng, LAST_NAMES, record.last)),
        replace(record, first=_other(rng, FIRST_NAMES, record.first)),
        replace(record, certificate=_other(rng, CERTIFICATES, record.certificate)),
        replace(record, year=_other(rng, tuple(range(2010, 2030)), record.year)),
        replace(record, day=_other(rng, tuple(range(1, 29)), record.day)),
    ]
    if record.identifier:
        others.append(replace(record, identifier=record.identifier[0] + record.identifier[:0:-1]))
    if record.city:
        others.append(replace(record, city=_other(rng, CITIES[locale], record.city)))
    rng.shuffle(others)
    if record.day <= 12:  # the mistake that a reader of the wrong country makes
        others.insert(0, replace(record, day=record.month, month=record.day))
    right = _canonical(record)
    return tuple(dict.fromkeys(text for o in others if (text := _canonical(o)) != right))


def _other(rng: Random, values: tuple[T, ...], value: T) -> T:
    return rng.choice([other for other in values if other != value])


def _note(rng: Random, locale: str, record: Record) -> str:
    clauses = rng.choice(NOTES[locale])
    said = {
        "name": _name(rng, locale, record),
        "cert": rng.choice(ALIASES[locale][record.certificate]) if record.certificate else "",
        "id": _written_identifier(rng, record.identifier),
        "home": _address(rng, locale, record),
        "date": _date(rng, locale, record),
    }
    kept = [c for c in clauses if all(said[f] for f in said if f"{{{f}}}" in c)]
    return "".join(kept).format(**said)


def _name(rng: Random, locale: str, record: Record) -> str:
    initial = rng.choice("ABCDEFGHKLMNRSTX")
    return rng.choice(
        (
            f"{record.first} {record.last}",
            f"{record.last}, {record.first}",
            f"{rng.choice(TITLES[locale])} {record.first} {record.last}",
            f"{record.first} {initial}. {record.last}",
        )
    )


def _written_identifier(rng: Random, identifier: str) -> str:
    return identifier and rng.choice(("", "-", "/", " ")).join((identifier[0], identifier[1:]))


def _address(rng: Random, locale: str, record: Record) -> str:
    if not record.street:
        return ""
    street, number = record.street.split()
    return rng.choice(ADDRESSES[locale]).format(street=street, number=number, city=record.city)


def _date(rng: Random, locale: str, record: Record) -> str:
    year, month, day = record.year, record.month, record.day
    kind = rng.random()
    if kind < 0.1:
        return _iso(record)
    if kind < 0.5:
        return LONG_DATES[locale].format(day=day, month=MONTHS[locale][month - 1], year=year)
    first, second = (month, day) if locale == "us" else (day, month)
    pad = rng.random() < 0.3
    short = year if rng.random() < 0.7 else f"{year % 100:02d}"
    mark = "." if locale == "de" else rng.choice("//-")
    return mark.join((f"{first:02d}", f"{second:02d}") if pad else (str(first), str(second))) + (
        f"{mark}{short}"
    )


_WORDS = table("extraction")
CERTIFICATES: tuple[str, ...] = tuple(_WORDS["certificates"])
STREETS: list[str] = _WORDS["streets"]
# By locale.
ALIASES: dict[str, dict[str, list[str]]] = _WORDS["aliases"]
TITLES: dict[str, list[str]] = _WORDS["titles"]
ADDRESSES: dict[str, list[str]] = _WORDS["addresses"]
MONTHS: dict[str, list[str]] = _WORDS["months"]
LONG_DATES: dict[str, str] = _WORDS["long_dates"]
NOTES: dict[str, list[list[str]]] = _WORDS["notes"]
