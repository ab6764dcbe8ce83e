from __future__ import annotations

import json
from pathlib import Path

import pytest

from evomerge.errors import ResultsError
from evomerge.report.folders import compare_folders
from evomerge.store import Store


def test_folders_are_compared_under_their_names(store: Store) -> None:
    folder = Path(store.folder)
    data = json.loads(compare_folders([folder, folder], "json"))
    assert [entry["label"] for entry in data["entries"]] == [str(folder), f"{folder} #2"]
    assert data["differences"][0]["overall"]["n"] == 240


def test_a_folder_without_a_campaign_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="holds no campaign"):
        compare_folders([Path(store.folder), tmp_path])
