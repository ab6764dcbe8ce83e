"""Dialogue: an order that a customer gives, completes and corrects over several turns.

Canonical answers: the whole order, `3 mugs | red | small | fri` with `-` for what was never said or
taken back, or the one slot that the last question asks for.
"""

from __future__ import annotations

from random import Random

from evomerge.zoo.jobs.draft import Draft
from evomerge.zoo.jobs.words import COLOURS, DAYS, NUMBERS

MISSING = "-"

Order = dict[str, str]


def draw(rng: Random) -> Draft:
    """Draw a conversation and its outcome; the content that decides the split is all of it."""
    order: Order = dict.fromkeys(SLOTS, MISSING) | {"thing": rng.choice(VALUES["thing"])}
    history = [dict(order)]
    turns = [_opening(rng, order)]
    for _ in range(rng.randint(1, 3)):
        history.append(dict(order))
        turns += [rng.choice(REPLIES), _change(rng, order)]
    turns.append(rng.choice(REPLIES))
    said = [slot for slot in ("count", "colour", "size", "day") if order[slot] != MISSING]
    if said and rng.random() < 0.3:
        slot = rng.choice(said)
        turns.append(rng.choice(SLOT_QUESTIONS).format(slot=slot))
        answers: tuple[str, ...] = (
            order[slot],
            f"The {slot} is {order[slot]}.",
            f"{slot}={order[slot]}",
            f"You said {order[slot]}.",
        )
        wrong = _wrong_slot(rng, order, slot, history)
    else:
        turns.append(rng.choice(QUESTIONS))
        answers = (_canonical(order), _prose(order), _fields(order), _reversed(order))
        wrong = _wrong_order(rng, order, history)
    return Draft(content="\n".join(turns), turns=tuple(turns), answers=answers, wrong=wrong)


def _opening(rng: Random, order: Order) -> str:
    """Fill some slots of `order` in place, and say so."""
    if rng.random() < 0.6:
        order["count"] = rng.choice(VALUES["count"])
    for slot in ("colour", "size", "day"):
        if rng.random() < 0.4:
            order[slot] = rng.choice(VALUES[slot])
    words = [
        _said(rng, slot, order[slot])
        for slot in ("count", "size", "colour")
        if order[slot] != MISSING
    ]
    thing = order["thing"]
    day = f" for {DAYS[order['day']]}" if order["day"] != MISSING else ""
    return rng.choice(OPENINGS).format(what=" ".join([*words, thing]), day=day)


def _change(rng: Random, order: Order) -> str:
    """Change one slot of `order` in place, and say so."""
    slot = rng.choice(SLOTS)
    old = order[slot]
    new = rng.choice([value for value in VALUES[slot] if value != old])
    if slot != "thing" and old != MISSING and rng.random() < 0.12:
        order[slot] = MISSING
        return rng.choice(FORGET).format(slot=slot)
    order[slot] = new
    forms = ADDITIONS if old == MISSING else CORRECTIONS
    before = "" if old == MISSING else _said(rng, slot, old)
    return rng.choice(forms).format(slot=slot, new=_said(rng, slot, new), old=before)


def _said(rng: Random, slot: str, value: str) -> str:
    if slot == "day":
        return DAYS[value]
    if slot == "count" and rng.random() < 0.5:
        return NUMBERS[int(value)]
    return value


def _canonical(order: Order) -> str:
    return (
        f"{order['count']} {order['thing']} | {order['colour']} | {order['size']} | {order['day']}"
    )


def _prose(order: Order) -> str:
    said = [f"{slot} {order[slot]}" for slot in SLOTS[1:] if order[slot] != MISSING]
    return f"Your order is {order['thing']}" + (f" with {', '.join(said)}." if said else ".")


def _fields(order: Order) -> str:
    return "; ".join(f"{slot}={order[slot]}" for slot in SLOTS)


def _reversed(order: Order) -> str:
    said = (value for slot in SLOTS[::-1] if (value := order[slot]) != MISSING)
    return " / ".join(said)


def _wrong_slot(rng: Random, order: Order, slot: str, history: list[Order]) -> tuple[str, ...]:
    earlier = [past[slot] for past in history[::-1] if past[slot] != MISSING]
    others = rng.sample(VALUES[slot], 4)
    return tuple(v for v in dict.fromkeys([*earlier, *others]) if v != order[slot])


def _wrong_order(rng: Random, order: Order, history: list[Order]) -> tuple[str, ...]:
    changed = [
        order | {slot: rng.choice([v for v in VALUES[slot] if v != order[slot]])}
        for slot in rng.sample(SLOTS, 4)
    ]
    right = _canonical(order)
    texts = [_canonical(other) for other in [*history[:0:-1], *changed]]
    return tuple(text for text in dict.fromkeys(texts) if text != right)


SLOTS = ("thing", "count", "colour", "size", "day")
VALUES: dict[str, tuple[str, ...]] = {
    "thing": ("mugs", "hats", "lamps", "chairs", "shirts", "clocks", "bags", "trays"),
    "count": tuple(str(number) for number in NUMBERS),
    "colour": COLOURS,
    "size": ("small", "medium", "large", "tiny", "huge"),
    "day": tuple(DAYS),
}
REPLIES = ("Noted.", "Sure.", "OK.")
OPENINGS = ("I want {what}{day}.", "Please order {what}{day}.", "Put down {what}{day}.")
ADDITIONS = ("The {slot} should be {new}.", "Oh, and {new}.", "For the {slot}, {new} please.")
CORRECTIONS = (
    "No, {new} instead of {old}.",
    "Sorry, not {old} but {new}.",
    "Change the {slot} to {new}.",
    "Make the {slot} {new}.",
    "Wait, I meant {new}.",
)
FORGET = ("Forget the {slot}.", "Drop what I said on the {slot}.")
QUESTIONS = ("What is my order now?", "Read it back to me.", "So what did I order?", "Sum it up.")
SLOT_QUESTIONS = ("Which {slot} did I choose?", "So the {slot} is?", "Remind me of the {slot}.")
