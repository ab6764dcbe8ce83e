"""Which sections a study's page has, and what they say."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import pytest

from evomerge.report.leaderboard import leaderboard
from evomerge.report.page.study import report_page
from evomerge.report.page.writing import LARGEST
from evomerge.report.verdict import verdict
from evomerge.store import Store
from tests.report.page.studies import write_study

ALWAYS = ["Verdict", "Leaderboard", "Costs", "Environment", "Do it again"]


def page_of(folder: Path, **settings: Any) -> str:
    with Store.open(write_study(folder, **settings), write=False) as store:
        return report_page(store)


def sections(page: str) -> list[str]:
    return re.findall(r"<h2[^>]*>([^<]*)</h2>", page)


@pytest.mark.parametrize(
    ("settings", "more"),
    [
        ({}, {"Search", "Winner", "Generalisation gap", "Items", "Failures"}),
        ({"until": "select"}, {"Search", "Winner", "Generalisation gap", "Items", "Failures"}),
        ({"until": "search"}, {"Search", "Winner", "Items", "Failures"}),
        ({"until": "parents"}, set()),
    ],
)
def test_a_page_has_the_sections_that_its_study_fills(
    tmp_path: Path, settings: dict[str, Any], more: set[str]
) -> None:
    found = sections(page_of(tmp_path / "out", **settings))
    assert [name for name in found if name not in more] == ALWAYS
    assert more <= set(found)


def test_it_says_what_was_found_what_failed_and_how_to_do_it_again(tmp_path: Path) -> None:
    folder = tmp_path / "my results"
    text = html.unescape(page_of(folder))
    with Store.open(folder, write=False) as store:
        board = leaderboard(store)
        campaign = store.campaign.to_yaml().rstrip()
    assert text.count(verdict(board).sentence) == 1
    assert "finished, 7 of 20 trials done; 2 experts, 2 tasks" in text
    assert ">NaN in layer 3 <" in text
    assert "Traceback: not finite, trial 6" in text
    assert board.winners[0].recipe.file().rstrip() in text
    assert campaign in text
    assert f"evomerge search '{folder}/campaign.yaml' --out NEW_DIR" in text
    assert "pip install evomerge==0.1.0 lm_eval==0.4.13" in text
    assert "ab" * 32 in text
    assert "ef" * 32 in text


def test_a_study_of_the_quickstarts_size_fits_whole(tmp_path: Path) -> None:
    page = page_of(tmp_path / "out", items=200, tasks=tuple(f"task_{one}" for one in "abcde"))
    assert len(page.encode()) < LARGEST
    assert "a page holds no more" not in page
