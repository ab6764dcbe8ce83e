from __future__ import annotations

from pathlib import Path

import optuna

from evomerge.config import Campaign
from evomerge.store.creation import create_study
from evomerge.store.database import close_optuna_storage, open_optuna_storage


def test_a_new_database_stands_whole_in_its_place(tmp_path: Path, campaign: Campaign) -> None:
    create_study(tmp_path, campaign, {"versions": {}}, ["maximize", "minimize"])
    assert [path.name for path in tmp_path.iterdir()] == ["study.db"]
    storage = open_optuna_storage(tmp_path / "study.db")
    study = optuna.load_study(study_name=campaign.name, storage=storage)
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    close_optuna_storage(storage)
