"""The site builds without a warning, quotes the program, and loads nothing from other hosts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

from evomerge.config import Campaign
from evomerge.merge.methods import METHODS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def test_every_command_stands_there_with_its_help(site: Path) -> None:
    page = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    for command in ("init", "check", "search", "resume", "report", "merge", "score", "zoo build"):
        assert f"Usage: evomerge {command} " in re.sub(r"<[^>]+>", "", page), command


def test_every_field_of_the_campaign_file_is_explained(site: Path) -> None:
    page = (site / "guides" / "campaign-file.html").read_text(encoding="utf-8")
    for field in Campaign.model_fields:
        row = re.search(rf"<td><code>{field}</code></td>\s*<td>.*?</td>\s*<td>(.*?)</td>", page)
        assert row is not None, field
        assert row[1].strip(), f"{field} has no description"


def test_every_merge_method_and_parameter_is_explained(site: Path) -> None:
    page = (site / "reference" / "methods.html").read_text(encoding="utf-8")
    for name, method in METHODS.items():
        section = page.split(f'<h3 id="{name}">')[1].split("<h3 ")[0]
        assert f'href="#{name}"' in page
        for parameter, spec in method.parameters.items():
            assert f"<td><code>{parameter}</code></td>" in section, (name, parameter)
            assert spec.help[:15] in unescape(section)


def test_every_file_of_the_package_is_in_the_tree(site: Path) -> None:
    page = (site / "development" / "architecture.html").read_text(encoding="utf-8")
    for file in (ROOT / "evomerge").rglob("*.py"):
        if file.name != "__init__.py":
            assert file.name in page, file


def test_nothing_is_loaded_from_other_hosts(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|img|link)[^>]+(?:src|href)=\"(https?://[^\"]+)",
            page.read_text(encoding="utf-8"),
        )
        assert loaded == [], page
