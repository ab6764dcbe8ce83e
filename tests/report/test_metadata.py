"""The metadata of cards, as huggingface_hub reads and validates it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard, repocard
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from huggingface_hub.utils import validate_repo_id

from evomerge.candidate import Coefficients, Recipe, Source
from evomerge.candidate.ensemble import Ensemble, Router
from evomerge.merge.card import default_card
from evomerge.report.card import model_card
from evomerge.report.leaderboard import Leaderboard, leaderboard
from evomerge.store import Store


def faults(content: str) -> list[str]:
    """What the Hub refuses in a card's metadata, by its documentation of model cards."""
    block = REGEX_YAML_BLOCK.search(content)
    if block is None:
        return ["no metadata"]
    data, found = yaml.safe_load(block[2]), []
    for key in ("library_name", "pipeline_tag", "license", "license_name", "license_link"):
        if not isinstance(data.get(key, ""), str):
            found.append(f"{key} is no text")
    if "license_name" in data and data["license"] != "other":
        found.append("license_name is for license: other")
    if not re.fullmatch(r"[a-z0-9.+-]*", data.get("license", "")):
        found.append("license is no identifier")
    for key in ("tags", "datasets", "metrics", "base_model"):
        if not all(isinstance(one, str) and one for one in data.get(key, [])):
            found.append(f"{key} is no list of texts")
    for model in data.get("base_model", []):
        validate_repo_id(model)
    if data.get("base_model_relation", "merge") not in (
        "merge",
        "finetune",
        "adapter",
        "quantized",
    ):
        found.append("base_model_relation")
    for model in data.get("model-index", []):
        if not isinstance(model["name"], str) or not model["results"]:
            found.append("model-index")
        for result in model["results"]:
            texts = [result["task"]["type"], result["dataset"]["type"], result["dataset"]["name"]]
            texts += [metric["type"] for metric in result["metrics"]]
            if not all(isinstance(text, str) and text for text in texts):
                found.append("model-index: type or name is no text")
            if not all(np.isfinite(metric["value"]) for metric in result["metrics"]):
                found.append("model-index: value is no number")
    return found


@pytest.fixture
def validate(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return huggingface_hub's own validation, whose question the rules above answer."""
    asked: list[str] = []

    def post(url: str, json: dict[str, Any], headers: object) -> SimpleNamespace:
        assert (json["repoType"], url.endswith("/api/validate-yaml")) == ("model", True)
        asked.append(json["content"])
        assert faults(json["content"]) == []
        return SimpleNamespace(status_code=200)

    monkeypatch.setattr(repocard, "get_session", lambda: SimpleNamespace(post=post))
    monkeypatch.setattr(repocard, "hf_raise_for_status", lambda response: None)

    def run(text: str) -> None:
        ModelCard(text).validate()
        assert faults(text) == []
        assert yaml.safe_load(REGEX_YAML_BLOCK.search(asked[-1])[2]) == yaml.safe_load(
            REGEX_YAML_BLOCK.search(text)[2]
        )

    return run


def test_the_scores_are_a_model_index(
    store: Store, board: Leaderboard, validate: Callable[[str], None]
) -> None:
    text = model_card(store, board)
    validate(text)
    data = ModelCard(text).data
    assert data.model_name == "small"
    values = board.row("trial 1").splits["holdout"].tasks
    assert len(data.eval_results) == len(values) == 3
    for one in data.eval_results:
        expected = values[one.dataset_type]["exact_match"]
        assert (one.metric_type, one.metric_value) == ("exact_match", expected.value)
        assert one.dataset_args == {"split": "holdout", "items": 80}
        assert one.metric_name == "exact_match (80 items)"
        assert one.metric_args["low"] == expected.low < one.metric_value
        assert one.metric_args["high"] == expected.high > one.metric_value
        assert json.dumps(one.metric_args)
    assert data.metrics == ["exact_match"]


def test_a_trial_that_was_pruned_states_no_scores(
    make_store: Callable[..., Store], lab: SimpleNamespace, validate: Callable[[str], None]
) -> None:
    store = make_store()
    lab.fill(store)
    lab.tell(store, 4, lab.outcome("trial 0", "search"), [0.3])
    board = leaderboard(store, 4)
    text = model_card(store, board, board.row("trial 4"))
    validate(text)
    assert ModelCard(text).data.eval_results is None
    assert "model_name" not in text


def test_names_from_outside_stay_in_their_place(
    make_store: Callable[..., Store], lab: SimpleNamespace, validate: Callable[[str], None]
) -> None:
    store = make_store(name="evil\n---\ntags: [x]\n# title <script>")
    lab.fill(store)
    text = model_card(store, leaderboard(store))
    validate(text)
    data = ModelCard(text).data
    assert data.model_name == "evil_---_tags: _x__# title _script_".replace("#", "_")
    assert "x" not in data.tags


def test_only_what_mergekit_reads_is_tagged_so(
    store: Store, board: Leaderboard, validate: Callable[[str], None]
) -> None:
    row = board.row("trial 1")
    fine = replace(row.recipe, coefficients=Coefficients({"w": np.ones((2, 4), np.float32)}))
    members = {"one": row.recipe, "two": fine}
    ensemble = Ensemble("/models/base", members, Router(layer=1))
    tags = {}
    for name, recipe in {"plain": row.recipe, "fine": fine, "ensemble": ensemble}.items():
        text = model_card(store, board, replace(row, recipe=recipe))
        validate(text)
        tags[name] = ModelCard(text).data.tags
    assert tags == {
        "plain": ["merge", "evomerge", "mergekit", "task_arithmetic"],
        "fine": ["merge", "evomerge", "task_arithmetic"],
        "ensemble": ["evomerge", "ensemble"],
    }


def test_a_card_without_a_campaign_is_valid_too(
    board: Leaderboard, validate: Callable[[str], None]
) -> None:
    recipe = board.row("trial 1").recipe.recipe()
    validate(default_card(recipe, "small"))
    linked = default_card(Recipe("ties", (Source("org/one@c0ffee"),), base_model="org/base"), "s")
    validate(linked)
    assert ModelCard(linked).data.base_model == ["org/base", "org/one"]
