"""The example of the page about simulating runs, and prints what stands there."""

from __future__ import annotations

import re
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "guides" / "simulating.md").read_text(encoding="utf-8")


def rows(table: str) -> list[tuple[str, list[float]]]:
    lines = [line.replace("%", "").split() for line in table.strip().splitlines()[1:]]
    return [(sampler, [float(one) for one in numbers]) for sampler, *numbers in lines]


def test_the_example_prints_its_table() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.S | re.M)
    (table,) = re.findall(r"^```text\n(.*?)^```", PAGE, re.S | re.M)
    with chdir(ROOT), redirect_stdout(StringIO()) as out:
        exec(compile(code, "simulating.md", "exec"), {})
    found, stated = rows(out.getvalue()), rows(table)
    assert [sampler for sampler, _ in found] == [sampler for sampler, _ in stated]
    for (_, numbers), (_, expected) in zip(found, stated, strict=True):
        assert numbers == pytest.approx(expected, rel=0.03, abs=0.03)
