from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from evomerge.report.items import ItemList, items_of
from evomerge.report.material import Material
from evomerge.report.page.fitting import LONGEST, fitted
from evomerge.report.page.study import report_page
from evomerge.report.page.writing import LARGEST, packed
from evomerge.store import Store
from tests.report.page.studies import write_study


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> ItemList:
    with Store.open(write_study(tmp_path_factory.mktemp("study") / "out"), write=False) as store:
        found = items_of(Material.of(store))
    assert found is not None
    return found


def with_noise(items: ItemList, letters: int) -> ItemList:
    draw = random.Random(0)
    tasks = [
        replace(task, prompts=tuple(f"{draw.randbytes(letters // 2).hex()}?" for _ in task.ids))
        for task in items.tasks
    ]
    return replace(items, tasks=tuple(tasks))


def test_what_fits_is_whole(items: ItemList) -> None:
    assert fitted(items, 100_000) == (items.to_json(), "")


def test_long_texts_are_cut_first_at_their_begin(items: ItemList) -> None:
    data, note = fitted(with_noise(items, 10_000), 150_000)
    assert note == "Texts are cut to 2,000 letters: a page holds no more."
    assert [len(task["ids"]) for task in data["tasks"]] == [30, 30]
    assert {len(prompt) for task in data["tasks"] for prompt in task["prompts"]} == {LONGEST}
    assert all(prompt.endswith("?") for task in data["tasks"] for prompt in task["prompts"])


def test_then_items_go_on_which_models_do_not_differ(items: ItemList) -> None:
    data, note = fitted(with_noise(items, 10_000), 40_000)
    assert len(packed(data)) <= 40_000
    counts = [len(task["ids"]) for task in data["tasks"]]
    assert counts[0] == counts[1] > 5
    assert f"of 60 items {sum(counts)} are here" in note
    task = data["tasks"][0]
    place = [int(one.split("-")[1]) for one in task["ids"]]
    assert place == sorted(place)
    whole = items.tasks[0]
    differ = {
        item
        for item in range(30)
        if any(whole.standing(item, items.row, at) in ("gained", "lost") for at in range(4))
    }
    assert set(place) <= differ or differ <= set(place)


def test_no_room_leaves_no_items(items: ItemList) -> None:
    data, note = fitted(items, 0)
    assert [task["ids"] for task in data["tasks"]] == [(), ()]
    assert "of 60 items 0 are here" in note


def test_a_large_study_fits_into_a_page(tmp_path: Path) -> None:
    draw = random.Random(0)
    text = draw.randbytes(3_000).hex()
    study = write_study(tmp_path / "out", items=400, text=text, tasks=tuple("abcdef"))
    with Store.open(study, write=False) as store:
        assert len(report_page(store).encode()) <= LARGEST
