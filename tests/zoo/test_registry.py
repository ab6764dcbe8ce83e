from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from evomerge.errors import ModelError
from evomerge.zoo import NAMES, registry, resolve


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_a_folder_with_a_model(name: str) -> None:
    assert (resolve(f"zoo:{name}") / "config.json").is_file()


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ModelError, match="no model 'zoo:fact'; did you mean \"zoo:facts\""):
        resolve("zoo:fact")


@pytest.mark.parametrize("name", ["base", "zoo:", "zoo:../zoo/base"])
def test_what_is_no_zoo_name_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match="the zoo has no model"):
        resolve(name)


def test_missing_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MODELS", tmp_path)
    with pytest.raises(ModelError, match="files of zoo:base are missing; reinstall"):
        resolve("zoo:base")


def test_names_are_resolved_without_torch() -> None:
    program = (
        "import sys; from evomerge.zoo import resolve, items; resolve('zoo:base'); "
        "items('tools', 'test', 2); sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
