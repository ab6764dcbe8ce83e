from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import evomerge
from evomerge.config import Campaign
from tests.small_campaign import TEXT


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished campaign of two experts, four layers in two groups."""
    folder = tmp_path_factory.mktemp("explained")
    text = TEXT.replace("search: 8, select: 8, holdout: 16", "search: 16, select: 24, holdout: 24")
    text = text.replace("trials: 6, finalists: 2", "trials: 2, finalists: 1")
    (folder / "c.yaml").write_text(text)
    return evomerge.search(Campaign.load(folder / "c.yaml")).folder


@pytest.fixture
def results(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(finished, tmp_path / "results")
