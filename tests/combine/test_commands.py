from __future__ import annotations

import json
from pathlib import Path

import pytest

from evomerge.candidate.ensemble import Ensemble
from evomerge.combine.commands import commands

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning:transformers", "ignore::UserWarning:peft"
)


def test_a_base_and_its_adapters_are_one_server() -> None:
    base = {"id": "org/base", "revision": "c0ffee"}
    combiner = {
        "base": base,
        "members": [
            {"name": "base", **base},
            {"name": "a b", **base, "adapter": "members/a_b", "rank": 4},
            {"name": "c", **base, "adapter": "members/c", "rank": 33},
        ],
        "router": {},
    }
    assert commands(combiner) == [
        "vllm serve org/base --served-model-name base --enable-lora --max-loras 2 --max-lora-rank 64 "
        "--lora-modules 'a b=members/a_b' c=members/c",
        "evomerge serve . --upstream http://127.0.0.1:8000",
    ]


def test_other_members_have_servers_of_their_own(made: tuple[Ensemble, Path]) -> None:
    combiner = json.loads((made[1] / "combiner.json").read_text())
    lines = commands(combiner)
    assert [line.split()[0] for line in lines] == ["vllm"] * 4 + ["evomerge"]
    assert "--lora-modules lora=members/lora second=members/second" in lines[0]
    assert [line.rpartition("--port ")[2] for line in lines[1:4]] == ["8001", "8002", "8003"]
    assert "--upstream head=http://127.0.0.1:8002" in lines[-1]
    assert "--upstream http://127.0.0.1:8000" in lines[-1]


def test_an_adapted_base_is_not_called_as_the_model_that_it_adapts() -> None:
    base = {"id": "org/base", "revision": "c0ffee", "rank": 4}
    combiner = {
        "base": {**base, "adapter": "members/base_2"},
        "members": [{"name": "base", **base, "adapter": "members/base"}],
        "router": {},
    }
    (line, _) = commands(combiner)
    assert "--served-model-name org/base " in line
    assert line.endswith("--lora-modules base=members/base")
