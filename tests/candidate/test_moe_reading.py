from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evomerge.candidate import MoeRecipe, Recipe, dumps_all, load_all, save
from evomerge.candidate.gates import GATES_FILE, Gates
from evomerge.candidate.moe_recipe import MoeExpert
from evomerge.errors import RecipeError

GUIDE = """\
base_model: path/to/self_attn_donor
gate_mode: cheap_embed
dtype: torch.bfloat16
experts_per_token: 1
experts:
  - source_model: expert_model_1
    positive_prompts:
      - "This is a prompt that is demonstrative of what expert_model_1 excels at"
    negative_prompts: ["This is a prompt suited to expert_model_2"]
  - source_model: {model: {path: expert_model_2, revision: main}, lora: {path: tuned}}
    positive_prompts: ["another"]
    residual_scale: 0.5
shared_experts:
  - source_model: model_name
    positive_prompts: [""]
"""


def loaded(tmp_path: Path, text: str) -> MoeRecipe:
    path = tmp_path / "moe.yaml"
    path.write_text(text)
    recipe, merges = load_all(path)
    assert isinstance(recipe, MoeRecipe)
    assert merges == {}
    return recipe


def test_every_key_of_mergekits_guide_is_read(tmp_path: Path) -> None:
    recipe = loaded(tmp_path, GUIDE.replace('[""]', "[x]"))
    assert recipe == MoeRecipe(
        base_model="path/to/self_attn_donor",
        experts=(
            MoeExpert(
                "expert_model_1",
                ("This is a prompt that is demonstrative of what expert_model_1 excels at",),
                ("This is a prompt suited to expert_model_2",),
            ),
            MoeExpert("expert_model_2@main+tuned", ("another",), residual_scale=0.5),
        ),
        shared_expert=MoeExpert("model_name", ("x",)),
        gate_mode="cheap_embed",
        dtype="bfloat16",
        experts_per_token=1,
    )
    assert recipe.model_names() == (
        "path/to/self_attn_donor",
        "expert_model_1",
        "expert_model_2@main+tuned",
        "model_name",
    )


def test_what_is_written_is_read_back_with_gates_and_merges(tmp_path: Path) -> None:
    gates = Gates.of({0: np.ones((2, 3), np.float32)})
    merge = Recipe("linear", base_model=None, dtype="float32")
    (tmp_path / "merge.yaml").write_text(
        "merge_method: linear\nmodels: [{model: a, parameters: {weight: 1.0}}]\n"
    )
    merge, _ = load_all(tmp_path / "merge.yaml")  # type: ignore[assignment]
    recipe = MoeRecipe(
        "made",
        (MoeExpert("made", residual_scale=0.75), MoeExpert("b", ("x",), ("y",))),
        MoeExpert("c"),
        gate_mode="random",
        experts_per_token=1,
        architecture="qwen",
        gates=gates,
    )
    save(recipe, tmp_path / "recipe.yaml", {"made": merge})
    assert load_all(tmp_path / "recipe.yaml") == (recipe, {"made": merge})
    assert (tmp_path / GATES_FILE).read_bytes() == gates.content
    assert dumps_all(recipe, {"made": merge}) == (tmp_path / "recipe.yaml").read_text()


def test_without_gates_the_seed_is_written(tmp_path: Path) -> None:
    recipe = MoeRecipe("a", (MoeExpert("b"),), gate_mode="random", experts_per_token=1, seed=3)
    save(recipe, tmp_path / "recipe.yaml")
    assert load_all(tmp_path / "recipe.yaml") == (recipe, {})


TWO = """\
base_model: a
gate_mode: hidden
experts:
  - {source_model: b, positive_prompts: [x]}
  - {source_model: c, positive_prompts: [y]}
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("base_model: a\n", "", "base_model is missing, such as base_model: org/model"),
        (
            "gate_mode: hidden",
            "gate_mod: hidden",
            ':2: gate_mod: unknown key "gate_mod"; did you mean "gate_mode"?',
        ),
        (
            "gate_mode: hidden",
            "gate_mode: hiden",
            ":2: gate_mode: found 'hiden', expected one of hidden, hidden_avg",
        ),
        (
            "source_model: b",
            "sourcemodel: b",
            ':4: experts.0.sourcemodel: unknown key "sourcemodel"; did you mean "source_model"?',
        ),
        (
            "positive_prompts: [x]",
            "positive_prompts: x",
            ":4: experts.0.positive_prompts: found 'x', expected a list",
        ),
        (
            "positive_prompts: [x]",
            "positive_prompts: [x], noise_scale: 0.1",
            "experts.0.noise_scale: noise cannot be drawn again",
        ),
        (
            "positive_prompts: [x]",
            "positive_prompts: [x], residual_scale: big",
            "residual_scale: found 'big', expected a number",
        ),
        (
            "positive_prompts: [x]",
            "negative_prompts: [x]",
            ":4: experts.0: positive_prompts is missing, which gate_mode: hidden needs",
        ),
        (
            "[y]",
            "[x]",
            ":3: experts: all experts have the same prompts, so no gate tells them apart",
        ),
        (
            "gate_mode: hidden",
            "gate_mode: hidden\nexperts_per_token: 3",
            ":3: experts_per_token: found 3, expected at most 2",
        ),
        (
            "gate_mode: hidden",
            "gate_mode: hidden\nexperts_per_token: 0",
            "experts_per_token: found 0, expected a whole number of at least 1",
        ),
        (
            "gate_mode: hidden",
            "gate_mode: hidden\narchitecture: deepseek",
            "architecture: found 'deepseek', expected one of mixtral",
        ),
        (
            "gate_mode: hidden",
            "gate_mode: hidden\ngates: none.safetensors",
            "gates: {folder}/none.safetensors: does not exist",
        ),
        (
            "gate_mode: hidden",
            "gate_mode: hidden\nshared_experts: [{source_model: b}]",
            "shared_experts.0: positive_prompts is missing",
        ),
        (
            "gate_mode: hidden",
            "gate_mode: hidden\nshared_experts: [{source_model: b}, {source_model: c}]",
            "shared_experts: found 2 shared experts, expected at most one",
        ),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    assert old in TWO
    with pytest.raises(RecipeError) as found:
        loaded(tmp_path, TWO.replace(old, new))
    assert message.format(folder=tmp_path) in str(found.value)
    assert str(tmp_path / "moe.yaml") in str(found.value)
    assert "\n" not in str(found.value)


def test_gates_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "g.safetensors").write_bytes(b"none")
    with pytest.raises(RecipeError, match=r"gates: .*g\.safetensors: not a safetensors file"):
        loaded(tmp_path, TWO + "gates: g.safetensors\n")
