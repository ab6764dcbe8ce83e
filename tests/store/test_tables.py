from __future__ import annotations

from optuna.storages._rdb import models

from evomerge.store.tables import METADATA


def test_our_tables_never_meet_optunas() -> None:
    assert not set(METADATA.tables) & set(models.BaseModel.metadata.tables)
    assert all(name.startswith("evomerge_") for name in METADATA.tables)
