import json
from pathlib import Path

import pytest

from benchmarks.speed import _probe
from benchmarks.speed._exports import write_tasks
from evomerge import zoo

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
COUNTS = {"train": 6, "validation": 2, "test": 5}


def probed(
    capsys: pytest.CaptureFixture[str], folder: Path, model: str, limit: int, task: str
) -> dict:
    _probe.main(str(zoo.resolve(model)), str(folder), str(limit), task)
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_the_digest_sees_every_request_and_the_logits_every_weight(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bare,) = write_tasks(tmp_path, "choice", ["tools"], COUNTS)
    (shown,) = write_tasks(tmp_path, "choice", ["tools"], COUNTS, shots=2)
    first = probed(capsys, tmp_path, "zoo:base", 5, bare)
    assert probed(capsys, tmp_path, "zoo:base", 5, bare) == first
    fewer = probed(capsys, tmp_path, "zoo:base", 4, bare)
    assert fewer["requests"] != first["requests"]
    assert fewer["logits"] == first["logits"]
    other = probed(capsys, tmp_path, "zoo:tools", 5, bare)
    assert other["requests"] == first["requests"]
    assert other["logits"] != first["logits"]
    assert len(probed(capsys, tmp_path, "zoo:base", 5, shown)["tokens"]) > len(first["tokens"])
