from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, replace

import pytest

from evomerge.tasks import PromptStyle, SplitPlan, TaskRequest
from evomerge.workers import WorkerSetup

SETUP = WorkerSetup(
    models=("base", "expert"),
    dtype="bfloat16",
    requests=(TaskRequest("task", 3),),
    tasks_path=None,
    plan=SplitPlan({"search": 8}, seed=3),
    prompt=PromptStyle(apply_chat_template=True),
)


def test_it_travels_small() -> None:
    packed = pickle.dumps(SETUP)
    assert pickle.loads(packed) == SETUP
    assert len(packed) < 2000


def test_it_is_safe_by_default_and_frozen() -> None:
    assert not SETUP.trust_remote_code
    assert not SETUP.allow_pickle
    with pytest.raises(FrozenInstanceError):
        SETUP.dtype = "float32"  # type: ignore[misc]
    assert replace(SETUP, threads=2) != SETUP
