from __future__ import annotations

from pathlib import Path

import pytest

from evomerge.candidate.ensemble import Ensemble
from evomerge.combine.folder import save_ensemble
from tests.combine.crew import crew
from tests.combine.mixtures import families
from tests.conftest import Family
from tests.merge.vocabularies import models
from tests.scoring_family import subject

__all__ = ["families", "models", "subject"]


@pytest.fixture(scope="module")
def made(llama_family: Family, tmp_path_factory: pytest.TempPathFactory) -> tuple[Ensemble, Path]:
    folder = tmp_path_factory.mktemp("crew")
    found = crew(llama_family, folder)
    save_ensemble(found, folder / "best")
    return found, folder / "best"
