from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from evomerge.report.items import ItemList, items_of
from evomerge.report.material import Material
from evomerge.store import Store
from tests.report.page.studies import TASKS, write_study


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> ItemList:
    with Store.open(write_study(tmp_path_factory.mktemp("study") / "out"), write=False) as store:
        found = items_of(Material.of(store))
    assert found is not None
    return found


def test_the_winner_stands_beside_parents_and_the_best_naive_merge(items: ItemList) -> None:
    assert items.split == "holdout"
    assert [row.name for row in items.rows] == [
        *("base", "extraction", "facts", "uniform average", "trial 1")
    ]
    assert (items.rows[items.row].kind, items.rows[items.against].kind) == ("winner", "baseline")
    assert [task.name for task in items.tasks] == list(TASKS)


def test_an_item_has_its_texts_answers_and_scores(items: ItemList) -> None:
    task = items.tasks[0]
    assert (task.prompts[7], task.golds[7]) == (" question 7\nAnswer:", "gold 7")
    winner, answers = task.scores[items.row], task.answers[items.row]
    assert winner is not None
    assert answers is not None
    for item, score in enumerate(winner):
        assert answers[item] == (f"gold {item}" if score else " wrong 1")


def test_gains_and_losses_add_up_to_the_difference(items: ItemList) -> None:
    total = 0.0
    for task in items.tasks:
        mine, theirs = task.scores[items.row], task.scores[items.against]
        assert mine is not None
        assert theirs is not None
        total += sum(mine) - sum(theirs)  # type: ignore[arg-type]
    assert items.count("gained") - items.count("lost") == total
    counts = [items.count(one) for one in ("gained", "lost", "same", "unknown")]
    assert sum(counts) == 60
    assert counts[3] == 0
    assert items.count("gained", against=items.row) == 0


def test_less_may_be_better(items: ItemList) -> None:
    task = replace(items.tasks[0], higher=False)
    pairs = {"gained": "lost", "lost": "gained", "same": "same"}
    for item in range(len(task.ids)):
        before = items.tasks[0].standing(item, items.row, 0)
        assert task.standing(item, items.row, 0) == pairs[before]


def test_a_study_that_runs_shows_what_leads_without_answers(tmp_path: Path) -> None:
    with Store.open(write_study(tmp_path / "out", until="search"), write=False) as store:
        found = items_of(Material.of(store))
    assert found is not None
    assert found.split == "search"
    assert found.rows[found.row].kind == "finalist"
    assert found.tasks[0].answers[found.against] is not None


def test_without_a_merge_there_is_nothing_to_show(tmp_path: Path) -> None:
    with Store.open(write_study(tmp_path / "out", until="parents"), write=False) as store:
        assert items_of(Material.of(store)) is None


def test_texts_that_were_not_kept_and_items_left_out_are_unknown(
    store: Store, lab: SimpleNamespace
) -> None:
    found = items_of(Material.of(store))
    assert found is not None
    task = found.tasks[0]
    assert set(task.prompts) == {""}
    assert task.answers[found.row] is None
    scores = (*task.scores[:-1], (None, *(task.scores[-1] or ())[1:]))
    part = replace(task, scores=scores)
    assert part.standing(0, found.row, 0) == "unknown"
    assert replace(task, scores=(None,) * 8).standing(0, 0, 1) == "unknown"
