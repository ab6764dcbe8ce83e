"""Tools: a user's request into a JSON call of the right function with the right arguments.

Canonical call: `{"name":"alarm","arguments":{"time":"19:15","day":"fri"}}`. Times are said in many
ways and always called on the 24-hour clock.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random

from evomerge.zoo.jobs.draft import Draft
from evomerge.zoo.jobs.words import CITIES, COLOURS, DAYS, FIRST_NAMES, NUMBERS, table

Value = str | int


def draw(rng: Random) -> Draft:
    """Draw a request and its call; the content that decides the split is the call."""
    name = rng.choice(tuple(FUNCTIONS))
    values = {argument: KINDS[argument][0](rng) for argument in FUNCTIONS[name]["arguments"]}
    said = {argument: KINDS[argument][1](rng, value) for argument, value in values.items()}
    answer = _canonical(name, values)
    return Draft(
        content=answer,
        turns=(rng.choice(FUNCTIONS[name]["requests"]).format(**said),),
        answers=(answer, _python(name, values), _prose(name, values), _lines(name, values)),
        wrong=_wrong(rng, name, values),
    )


def _canonical(name: str, values: dict[str, Value]) -> str:
    return json.dumps({"name": name, "arguments": values}, separators=(",", ":"))


def _python(name: str, values: dict[str, Value]) -> str:
    return f"{name}({', '.join(f'{key}={value}' for key, value in values.items())})"


def _prose(name: str, values: dict[str, Value]) -> str:
    return f"Use {name} with {' and '.join(f'{key} {value}' for key, value in values.items())}."


def _lines(name: str, values: dict[str, Value]) -> str:
    return "\n".join([f"call: {name}", *(f"{key}: {value}" for key, value in values.items())])


def _wrong(rng: Random, name: str, values: dict[str, Value]) -> tuple[str, ...]:
    others: list[str] = []
    while len(others) < 3:
        argument = rng.choice(tuple(values))
        changed = values | {argument: KINDS[argument][0](rng)}
        function = name if rng.random() < 0.7 else _alike(rng, name)
        text = _canonical(function, changed)
        if text not in others and (function != name or changed != values):
            others.append(text)
    return tuple(others)


def _alike(rng: Random, name: str) -> str:
    return rng.choice([other for other in FUNCTIONS if other != name])


def _time(rng: Random) -> str:
    return f"{rng.randint(0, 23):02d}:{rng.choice((0, 15, 30, 45)):02d}"


def _say_time(rng: Random, value: Value) -> str:
    hour, minute = (int(part) for part in str(value).split(":"))
    if rng.random() < 0.2:
        return f"{hour}:{minute:02d}"
    half = "am" if hour < 12 else "pm"
    part = "in the morning" if hour < 12 else "in the evening"
    twelve = (hour - 1) % 12 + 1
    if rng.random() < 0.5:
        return f"{twelve}:{minute:02d} {half}" if minute else f"{twelve} {half}"
    if minute == 45:
        return f"quarter to {hour % 12 + 1} {part}" if hour not in (11, 23) else f"{hour}:45"
    return {0: "", 15: "quarter past ", 30: "half past "}[minute] + f"{twelve} {part}"


def _say_number(rng: Random, value: Value) -> str:
    return NUMBERS[int(value)] if rng.random() < 0.5 else str(value)


def _as_is(rng: Random, value: Value) -> str:
    return str(value)


def _day(rng: Random) -> str:
    return rng.choice(tuple(DAYS))


def _say_day(rng: Random, value: Value) -> str:
    return DAYS[str(value)]


def _one_of(values: tuple[Value, ...]) -> Callable[[Random], Value]:
    return lambda rng: rng.choice(values)


UNITS = {"km": "kilometers", "mi": "miles", "kg": "kilos", "lb": "pounds"}
# For each argument: how to draw it, and how a user says it.
KINDS: dict[str, tuple[Callable[[Random], Value], Callable[[Random, Value], str]]] = {
    "city": (_one_of(tuple(city for cities in CITIES.values() for city in cities)), _as_is),
    "day": (_day, _say_day),
    "time": (_time, _say_time),
    "minutes": (lambda rng: rng.randint(2, 99), _as_is),
    "people": (_one_of(tuple(NUMBERS)), _say_number),
    "place": (_one_of(("Roma", "Luna", "Olive", "Garden", "Harbour")), _as_is),
    "to": (_one_of(FIRST_NAMES), _as_is),
    "about": (_one_of(("lunch", "rent", "school", "tickets", "the keys", "the meeting")), _as_is),
    "amount": (lambda rng: rng.randint(2, 999), _as_is),
    "unit": (_one_of(tuple(UNITS)), lambda rng, value: UNITS[str(value)]),
    "room": (_one_of(("kitchen", "bedroom", "hall", "office")), _as_is),
    "colour": (_one_of(COLOURS), _as_is),
}
FUNCTIONS: dict[str, dict[str, list[str]]] = table("tools")
"""Function → its `arguments` in order, and the `requests` by which it is asked for."""
