from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from evomerge.candidate.cost import Cost
from evomerge.candidate.trial import Estimate, Outcome, TaskScores
from evomerge.config import Campaign


def make_campaign(**changes: Any) -> Campaign:
    """Two tasks, one better when higher, one better when lower."""
    data: dict[str, Any] = {
        "name": "aims",
        "models": {"base": "/m/base", "experts": ["/m/one", "/m/two"]},
        "space": {"method": "linear", "parameters": {"weight": {"low": 0.0, "high": 1.0}}},
        "objectives": [
            {"task": "exam", "metric": "acc", "weight": 3.0},
            {"task": "text", "metric": "word_perplexity"},
        ],
        "out": "/out",
    }
    return Campaign.model_validate({**data, **changes})


def outcome(acc: float, perplexity: float = 2.0, cost: Cost | None = None) -> Outcome:
    scores = {
        "exam": TaskScores(("a",), {"acc": (acc,)}, {"acc": Estimate(acc)}),
        "text": TaskScores(("b",), {}, {"word_perplexity": Estimate(perplexity)}),
    }
    return Outcome(scores, cost=cost or Cost(0.1, 2.0, 2, 20))


def evaluation(name: str, kind: str, found: Outcome, split: str = "search") -> SimpleNamespace:
    return SimpleNamespace(name=name, kind=kind, split=split, outcome=found)


@pytest.fixture(scope="session")
def made() -> SimpleNamespace:
    """What one test module cannot import from another."""
    return SimpleNamespace(campaign=make_campaign, outcome=outcome, evaluation=evaluation)
