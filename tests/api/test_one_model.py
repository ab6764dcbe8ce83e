"""Recipes that name models of the zoo."""

from __future__ import annotations

import json

import pytest

import evomerge
from evomerge import zoo
from evomerge.errors import ModelError

RECIPE = """
merge_method: ties
base_model: {base}
models:
  - {{model: {one}, parameters: {{weight: 1.0, density: 0.6}}}}
  - {{model: {other}, parameters: {{weight: 0.5, density: 0.6}}}}
dtype: float32
"""
NAMES = {"base": "zoo:base", "one": "zoo:facts", "other": "zoo:tools"}


def test_models_of_the_zoo_are_merged_by_name(tmp_path):
    folders = {role: zoo.resolve(name) for role, name in NAMES.items()}
    weights = []
    for place, models in (("named", NAMES), ("folders", folders)):
        file = tmp_path / f"{place}.yaml"
        file.write_text(RECIPE.format(**models), encoding="utf-8")
        evomerge.merge(file, tmp_path / place)
        weights.append((tmp_path / place / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    assert "model: zoo:facts" in (tmp_path / "named" / "recipe.yaml").read_text(encoding="utf-8")


def test_an_adapter_of_the_zoos_base_names_its_folder(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.format(**NAMES), encoding="utf-8")
    evomerge.merge(file, tmp_path / "adapter", as_lora=4)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == str(zoo.resolve("zoo:base").resolve())


@pytest.mark.parametrize("as_lora", [None, 4])
@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("./nowhere", "no such folder; expected a model folder"),
        ("zoo:fcts", "the zoo has no model 'zoo:fcts'; did you mean \"zoo:facts\"?"),
    ],
)
def test_a_missing_model_is_told_of_by_the_recipes_line(tmp_path, missing, message, as_lora):
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.format(**NAMES | {"other": missing}), encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        evomerge.merge(file, tmp_path / "out", as_lora=as_lora)
    assert str(caught.value).startswith(f"{file}:6: models.1.model: {missing}: {message}")
    assert not (tmp_path / "out").exists()
