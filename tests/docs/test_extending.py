"""The code on the page about extending passes the shared suites, from outside the package."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "development" / "extending.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.S | re.M)


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("extending") / "test_page.py"
    file.write_text("\n\n".join(BLOCKS), encoding="utf-8")
    return file


def test_the_examples_pass_their_suites(module: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(module)],
        cwd=module.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]


def test_what_is_registered_is_known_by_name(module: Path) -> None:
    tables = {
        "climber": "evomerge.search.samplers.SAMPLERS",
        "titles": "evomerge.report.formats.FORMATS",
        "shortest": "evomerge.scoring.BACKENDS",
        "lines": "evomerge.loggers.LOGGERS",
    }
    known = "import pkgutil, test_page\n" + "\n".join(
        f"assert {name!r} in pkgutil.resolve_name({table!r})" for name, table in tables.items()
    )
    done = subprocess.run([sys.executable, "-c", known], cwd=module.parent, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_a_campaign_may_name_the_page_as_its_file_of_methods(module: Path) -> None:
    known = (
        "from evomerge.merge.methods import METHODS, method\n"
        "from evomerge.merge.user_methods import MethodFile, use\n"
        f"use(MethodFile.read({str(module)!r}))\n"
        "assert method('signs').parameters['weight'].required"
    )
    done = subprocess.run([sys.executable, "-c", known], cwd=module.parent, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
