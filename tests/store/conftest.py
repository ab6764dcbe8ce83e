from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from evomerge.candidate import Merge
from evomerge.candidate.cost import Cost
from evomerge.candidate.trial import Entry, Estimate, Failure, FailureKind, Outcome, TaskScores
from evomerge.config import Campaign
from evomerge.store import Store


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    return Campaign.model_validate(
        {
            "name": "trial of storage",
            "models": {"base": "/models/base", "experts": ["/models/one", "/models/two"]},
            "space": {
                "method": "task_arithmetic",
                "parameters": {"weight": {"low": 0.0, "high": 1.0}},
            },
            "objectives": [{"task": "first", "metric": "acc"}, {"task": "second", "metric": "acc"}],
            "out": str(tmp_path / "out"),
        }
    )


@pytest.fixture
def facts() -> dict[str, object]:
    return {"versions": {"optuna": "5.0.0"}, "items": {"first": {"search": ["c", "b", "a"]}}}


@pytest.fixture
def store(campaign: Campaign, facts: dict[str, object]) -> Iterator[Store]:
    with Store.create(Path(campaign.out), campaign, facts, directions=["maximize"]) as opened:
        yield opened


@pytest.fixture
def commits(store: Store) -> list[str]:
    """Grows with every transaction."""
    found: list[str] = []
    store._log.connection.set_trace_callback(
        lambda sql: found.append(sql) if sql == "COMMIT" else None
    )
    return found


@pytest.fixture
def scored() -> Outcome:
    """An outcome with everything in it, tenths that no decimal of fixed length holds included."""
    first = TaskScores(
        items=("a", "b", "c"),
        metrics={"acc": (0.1 + 0.2, 1.0, 0.0), "pairs": (("x", 1), ("y", 2), ("z", None))},
        values={"acc": Estimate(1.3 / 3, 0.1), "perplexity": Estimate(float("inf"))},
        truncated=1,
    )
    second = TaskScores(("d",), {"acc": (1.0,)}, {"acc": Estimate(1.0)})
    return Outcome({"first": first, "second": second}, None, Cost(0.25, 1.5, 4, 7), "node/1")


@pytest.fixture
def failed() -> Outcome:
    return Outcome(failure=Failure(FailureKind.NOT_FINITE, "NaN in layer 3"), worker="node/2")


@pytest.fixture
def candidate() -> Callable[..., Entry]:
    def make(number: int, weight: float = 0.5) -> Entry:
        merge = Merge(
            "task_arithmetic",
            ("/models/one",),
            "/models/base",
            groups=((0, 2),),
            own={"weight": (((weight,),),)},
            dtype="float32",
            seed=number,
        )
        return Entry(f"trial {number}", merge, number)

    return make


@pytest.fixture
def in_child() -> Callable[[Callable[[], object]], int]:
    """Run a function in a child process; return its exit status, minus the signal that ended it."""

    def run(function: Callable[[], object]) -> int:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                function()
                status = 0
            finally:
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    return run
