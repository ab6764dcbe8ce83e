from __future__ import annotations

import json
from random import Random

import pytest

from evomerge.zoo.jobs import tools


def test_every_call_is_json_with_the_arguments_of_its_function() -> None:
    rng = Random(1)
    names = set()
    for _ in range(400):
        draft = tools.draw(rng)
        call = json.loads(draft.answers[0])
        assert list(call) == ["name", "arguments"]
        assert list(call["arguments"]) == tools.FUNCTIONS[call["name"]]["arguments"]
        names.add(call["name"])
    assert names == set(tools.FUNCTIONS)


@pytest.mark.parametrize("value", [f"{h:02d}:{m:02d}" for h in range(24) for m in (0, 15, 30, 45)])
def test_a_time_is_said_so_that_only_one_time_is_meant(value: str) -> None:
    rng = Random(value)
    hour, minute = map(int, value.split(":"))
    for _ in range(30):
        said = tools._say_time(rng, value)
        morning = said.endswith(("am", "in the morning"))
        evening = said.endswith(("pm", "in the evening"))
        if not morning and not evening:
            assert said == f"{hour}:{minute:02d}"
            continue
        digits = [int(part) for part in said.replace(":", " ").split() if part.isdigit()]
        meant = digits[0] % 12 + (12 if evening else 0)
        past = digits[1] if len(digits) > 1 else 15 * ("quarter past" in said)
        minutes = 60 * meant + past + 30 * ("half" in said) - 15 * ("quarter to" in said)
        assert minutes == 60 * hour + minute, said


def test_every_argument_can_be_drawn_and_said() -> None:
    rng = Random(2)
    for draw, say in tools.KINDS.values():
        assert say(rng, draw(rng))
