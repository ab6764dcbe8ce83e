import json
from pathlib import Path

import pytest

from benchmarks.speed import gradient


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_prints_and_writes_a_row_a_method_loss_and_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report" / "gradient.json"
    asked = ["--methods", "ties", "--items", "1", "2", "--rounds", "2", "--out", str(out)]
    gradient.main(asked)
    rows = json.loads(out.read_text())["rows"]
    cases = [(row["method"], row["loss"], row["items"]) for row in rows]
    assert cases == [("ties", loss, items) for loss in ("gold", "expert") for items in (1, 2)]
    for row in rows:
        assert row["step"] > row["forward"] > 0
        assert row["ratio"] == pytest.approx(row["step"] / row["forward"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["method", "loss", "items", "forward", "step", "ratio"]
    assert len(printed) == 1 + len(rows)
