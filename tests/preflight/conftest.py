"""A small campaign, with any of its lines changed, checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from evomerge.config import Campaign
from evomerge.preflight.check import Preflight, preflight

ROOT = Path(__file__).parents[2]
TEXT = f"""\
name: small
models:
  base: zoo:base
  experts: [zoo:facts, zoo:tools]
  dtype: float32
space:
  method: task_arithmetic
  layers: 2
  parameters:
    weight: {{low: 0.0, high: 1.2}}
objectives:
  - {{task: zoo_facts, metric: exact_match}}
  - {{task: zoo_tools, metric: exact_match}}
tasks_path: {ROOT}/benchmarks/tasks
items: {{search: 8, select: 8, holdout: 8}}
search: {{sampler: cmaes, trials: 4}}
workers: {{count: auto}}
"""

Checked = Callable[..., Preflight]


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Preflight:
    """The campaign as it stands above."""
    path = tmp_path_factory.mktemp("campaigns") / "c.yaml"
    path.write_text(TEXT)
    return preflight(Campaign.load(path), path)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Pairs of old and new text → the campaign's file with them replaced."""

    def write(*changes: str) -> Path:
        text = TEXT
        for old, new in zip(changes[::2], changes[1::2], strict=True):
            assert old in text
            text = text.replace(old, new, 1)
        path = tmp_path / "c.yaml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def checked(small: Preflight, write: Callable[..., Path]) -> Checked:
    """Pairs of old and new text → the checked campaign; models and items are opened once for all."""
    return lambda *changes: replace(small, campaign=Campaign.load(write(*changes)))
