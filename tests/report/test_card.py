from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from huggingface_hub import ModelCard

from evomerge.candidate import Coefficients
from evomerge.errors import ResultsError
from evomerge.report.card import model_card, shown_model
from evomerge.report.leaderboard import Leaderboard, leaderboard
from evomerge.store import Store


def test_the_hub_reads_its_metadata(make_store: Callable[..., Store], lab: SimpleNamespace) -> None:
    models = {"base": "org/base-1.5B", "experts": ["org/coder", "/home/me/math"]}
    store = make_store(models=models)
    lab.fill(store)
    text = model_card(store, leaderboard(store))
    data = ModelCard(text).data.to_dict()
    assert data["base_model"] == ["org/base-1.5B", "org/coder"]
    assert data["base_model_relation"] == "merge"
    assert data["tags"] == ["merge", "evomerge", "mergekit", "task_arithmetic"]
    assert data["library_name"] == "transformers"
    assert "/home/me" not in text
    assert "| expert math | math |" in text


def test_it_says_what_the_winner_is_and_how_sure_that_is(store: Store, board: Leaderboard) -> None:
    text = model_card(store, board)
    assert "method `task_arithmetic`, trial 1 of 4 (sampler cmaes, seed 0)" in text
    assert "| **trial 1 (winner)** |" in text
    assert "trial 1 against the best expert, " in text
    assert "from search to select to holdout items" in text
    assert board.row("trial 1").recipe.file().rstrip() in text
    assert 'AutoModelForCausalLM.from_pretrained("PATH_OR_ID_OF_THIS_MODEL")' in text
    assert "lm_eval 0.4.13" in text
    assert "24 items a task" in text
    assert "{{" not in text


def test_models_without_a_place_on_the_hub_are_not_linked(store: Store, board: Leaderboard) -> None:
    text = model_card(store, board)
    assert ModelCard(text).data.base_model is None
    assert "| base | zoo:base |" in text


def test_what_comes_from_outside_is_escaped(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    name = "evil\n---\n# title <script>"
    store = make_store(name=name)
    lab.fill(store)
    text = model_card(store, leaderboard(store))
    assert "<script>" not in text
    assert "# evil --- # title &lt;script>" in text


def test_it_says_what_a_merge_by_row_needs(store: Store, board: Leaderboard) -> None:
    row = board.row("trial 1")
    assert "mergekit does not read" not in model_card(store, board, row)
    coefficients = Coefficients({"w": np.ones((2, 4), np.float32)})
    fine = replace(row, recipe=replace(row.recipe, coefficients=coefficients))
    text = model_card(store, board, fine)
    assert "coefficients: coefficients.safetensors" in text
    assert "mergekit does not read that file, and so cannot build this merge" in text


def test_any_row_can_be_described(store: Store, board: Leaderboard) -> None:
    text = model_card(store, board, board.row("ties"))
    assert "method `task_arithmetic`, ties." in text


def test_a_trial_that_was_no_finalist_is_described_on_the_search_items(store: Store) -> None:
    board = leaderboard(store, 0)
    row = board.row("trial 0")
    text = model_card(store, board, row)
    assert "trial 0 of 4 (sampler" in text
    assert "| trial 0 | 0." in text
    assert "These are search items, on which choices were made" in text
    assert row.recipe.file().rstrip() in text


def test_without_a_winner_there_is_no_card(make_store: Callable[..., Store]) -> None:
    store = make_store()
    with pytest.raises(ResultsError, match="no winner yet"):
        model_card(store, leaderboard(store))


@pytest.mark.parametrize(
    ("model", "shown"),
    [("/a/b", "b"), ("org/name", "org/name"), ("zoo:base", "zoo:base"), ("~/x/", "x")],
)
def test_folders_of_this_machine_stay_private(model: str, shown: str) -> None:
    assert shown_model(model) == shown
