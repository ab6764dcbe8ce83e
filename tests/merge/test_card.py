"""The short model card."""

from __future__ import annotations

import numpy as np
import pytest

from evomerge import yaml_file
from evomerge.candidate import Coefficients, Recipe, Source, loads
from evomerge.merge.card import default_card


def test_card_names_models_method_and_recipe(tmp_path):
    recipe = Recipe(
        method="ties",
        models=(Source("org/one"), Source("org/base+org/lora"), Source(str(tmp_path))),
        base_model="org/base",
        parameters={"weight": 0.1 + 0.2},
    )
    card = default_card(recipe, "mine")
    front, body = card.removeprefix("---\n").split("---\n", 1)
    parsed = yaml_file.parse(front).data
    assert parsed["base_model"] == [
        "org/base",
        "org/one",
        "org/lora",
    ]  # what the Hub can link, each once
    assert "merge" in parsed["tags"]
    assert body.startswith("\n# mine\n")
    assert "- `org/one`" in body
    assert loads(body.split("```yaml\n")[1].split("```")[0]) == recipe
    assert "mergekit" not in card


def test_a_card_says_what_a_merge_by_row_needs():
    table = np.ones((1, 4), np.float32)
    recipe = Recipe(
        "ties", (Source("org/one"),), base_model="org/base", coefficients=Coefficients({"w": table})
    )
    card = default_card(recipe, "mine")
    assert "`coefficients.safetensors`, beside the recipe" in card
    assert "mergekit does not read that file, and so cannot build this merge" in card


@pytest.mark.parametrize(
    ("method", "parameters", "lacking"),
    [
        ("regmean", {}, "`regmean`"),
        ("ties", {"calibrate": True, "importance": True}, "`calibrate` and no `importance`"),
        ("ties", {"calibrate": False}, None),
    ],
)
def test_a_card_says_what_mergekit_lacks(method, parameters, lacking):
    sources = (Source("org/one", parameters={"weight": 1.0}),)
    card = default_card(Recipe(method, sources, base_model="org/b", parameters=parameters), "mine")
    if lacking is None:
        assert "mergekit" not in card
    else:
        assert f"mergekit has no {lacking}, and cannot build this merge." in card
