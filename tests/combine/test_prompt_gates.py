"""mergekit-moe's files: what mergekit 0.1.5 makes of them is the oracle."""

from __future__ import annotations

import json
import random
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import evomerge
from evomerge import yaml_file
from evomerge.candidate import MoeRecipe, load_all, save
from evomerge.candidate.moe_recipe import MoeExpert
from evomerge.errors import ModelError, RecipeError
from tests.combine.mixtures import ARCHITECTURES, SHARED, alone, mixture_of
from tests.conftest import Family

Families = Callable[[str], Family]


def written(
    family: Family,
    mode: str,
    folder: Path,
    *,
    shared: bool = False,
    more: str = "",
    dtype: str | None = "float32",
) -> Path:
    """Write a recipe with prompts, two positive and at times a negative one."""
    chance = random.Random(0)

    def text() -> str:
        return "".join(chance.choice("abcdefghij ") for _ in range(chance.randint(4, 12)))

    experts = [
        {
            "source_model": model,
            "positive_prompts": [text(), text()],
            **({"negative_prompts": [text()]} if number else {}),
        }
        for number, model in enumerate(family.experts)
    ]
    data: dict[str, Any] = {"base_model": family.base, "gate_mode": mode, "experts": experts[:2]}
    data |= {"experts_per_token": 1, "dtype": dtype}
    if shared:
        # mergekit opens no model for a shared expert alone.
        own = {"source_model": family.experts[0], "residual_scale": 0.5}
        data["shared_experts"] = [experts[2] | own]
    path = folder / "moe.yaml"
    path.write_text(yaml_file.dump(data) + more)
    return path


def by_mergekit(recipe: Path, out: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mergekit's own
        from mergekit.moe.config import MoEMergeConfig
        from mergekit.options import MergeOptions
        from mergekit.scripts.moe import build

        config = MoEMergeConfig.model_validate(yaml_file.read(recipe).data)
        build(config, str(out), MergeOptions(write_threads=1, quiet=True), device="cpu")


def class_by_mergekit(recipe: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mergekit's own
        from mergekit.moe.config import MoEMergeConfig
        from mergekit.options import MergeOptions
        from mergekit.scripts.moe import select_output_arch

        config = MoEMergeConfig.model_validate(yaml_file.read(recipe).data)
        found: str = select_output_arch(config, MergeOptions()).name()
    return found


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return dict(model.state_dict())


@pytest.mark.parametrize("mode", ["cheap_embed", "hidden", "random"])
@pytest.mark.parametrize(
    ("architecture", "shared"),
    [*((one, False) for one in ARCHITECTURES if one != "qwen2"), ("qwen2", True), ("llama", True)],
)
def test_tensors_that_both_define_agree_with_mergekit(
    architecture: str, shared: bool, mode: str, families: Families, tmp_path: Path
) -> None:
    recipe = written(families(architecture), mode, tmp_path, shared=shared)
    by_mergekit(recipe, tmp_path / "theirs")
    evomerge.merge(recipe, tmp_path / "ours")
    theirs, ours = tensors(tmp_path / "theirs"), tensors(tmp_path / "ours")
    # mergekit gives Qwen2-MoE zeros as biases where the models have none; ours has none.
    zeros = {name for name in theirs.keys() - ours.keys() if name.endswith("_proj.bias")}
    assert not any(theirs[name].any() for name in zeros)
    assert theirs.keys() - zeros == ours.keys()
    for name, tensor in ours.items():
        if "gate.weight" in name and mode != "cheap_embed":
            assert tensor.shape == theirs[name].shape
        else:
            tolerance = 1e-6 if "gate.weight" in name else 0.0
            torch.testing.assert_close(tensor, theirs[name], atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    ("mode", "average"), [("hidden", False), ("hidden_last", False), ("hidden_avg", True)]
)
def test_hidden_gates_are_what_the_router_would_read_of_each_prompt_alone(
    mode: str, average: bool, families: Families, tmp_path: Path
) -> None:
    family = families("llama")
    recipe = written(family, mode, tmp_path)
    evomerge.merge(recipe, tmp_path / "out")
    found = tensors(tmp_path / "out")
    base: Any = AutoModelForCausalLM.from_pretrained(family.base, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(family.base)
    read: list[torch.Tensor] = []
    base.model.layers[2].post_attention_layernorm.register_forward_hook(
        lambda _, __, output: read.append(output[0].mean(0) if average else output[0, -1])
    )

    def mean(prompts: list[str]) -> torch.Tensor:
        read.clear()
        with torch.no_grad():
            for prompt in prompts:
                base(
                    tokenizer("<s>" + prompt, add_special_tokens=False, return_tensors="pt")[
                        "input_ids"
                    ]
                )
        return torch.stack(read).mean(0)

    for number, expert in enumerate(yaml_file.read(recipe).data["experts"]):
        vector = mean(expert["positive_prompts"])
        if "negative_prompts" in expert:
            vector = vector - mean(expert["negative_prompts"])
        torch.testing.assert_close(
            found["model.layers.2.mlp.gate.weight"][number],
            vector / vector.norm(),
            atol=1e-5,
            rtol=1e-5,
        )


def test_random_gates_are_the_same_every_time_and_others_by_another_seed(
    families: Families, tmp_path: Path
) -> None:
    made = []
    for number, seed in enumerate((0, 0, 1)):
        folder = tmp_path / str(number)
        folder.mkdir()
        recipe = written(families("llama"), "uniform_random", folder, more=f"seed: {seed}\n")
        evomerge.merge(recipe, folder / "out")
        made.append(tensors(folder / "out")["model.layers.0.mlp.gate.weight"])
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    assert made[0].abs().max() <= 32**-0.5


def test_the_recipe_that_is_written_is_one_of_mergekits(families: Families, tmp_path: Path) -> None:
    recipe = written(families("llama"), "hidden", tmp_path)
    evomerge.merge(recipe, tmp_path / "out")
    by_mergekit(tmp_path / "out" / "recipe.yaml", tmp_path / "theirs")
    theirs, ours = tensors(tmp_path / "theirs"), tensors(tmp_path / "out")
    for name, tensor in ours.items():
        if "gate.weight" not in name:
            assert torch.equal(tensor, theirs[name]), name


@pytest.mark.parametrize("architecture", SHARED)
def test_mergekit_takes_our_recipe_with_a_share_for_the_same_class(
    architecture: str, families: Families, tmp_path: Path
) -> None:
    family = families(architecture)
    recipe, merges = mixture_of(family, shared=alone(family.base), share=0.3).recipe()
    save(recipe, tmp_path / "recipe.yaml", merges)
    assert class_by_mergekit(tmp_path / "recipe.yaml") == "Qwen MoE"
    assert load_all(tmp_path / "recipe.yaml") == (recipe, {})
    evomerge.merge(tmp_path / "recipe.yaml", tmp_path / "out")
    assert AutoConfig.from_pretrained(tmp_path / "out").model_type == "qwen2_moe"


@pytest.mark.parametrize("architecture", ["llama", "mistral"])
def test_what_mergekit_makes_a_deepseek_moe_of_is_refused(
    architecture: str, families: Families, tmp_path: Path
) -> None:
    family = families(architecture)
    experts = tuple(MoeExpert(model) for model in family.experts[:2])
    recipe = MoeRecipe(family.base, experts, MoeExpert(family.experts[0]), gate_mode="random")
    save(recipe, tmp_path / "recipe.yaml")
    assert class_by_mergekit(tmp_path / "recipe.yaml") == "DeepSeek MoE"
    with pytest.raises(RecipeError, match=r"shared_experts\.0: .*DeepSeek.*architecture: qwen"):
        evomerge.merge(tmp_path / "recipe.yaml", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with (tmp_path / "recipe.yaml").open("a") as file:
        file.write("architecture: qwen\n")
    assert class_by_mergekit(tmp_path / "recipe.yaml") == "Qwen MoE"
    evomerge.merge(tmp_path / "recipe.yaml", tmp_path / "out")
    assert AutoConfig.from_pretrained(tmp_path / "out").model_type == "qwen2_moe"


def test_a_recipe_of_earlier_versions_with_gates_is_built(
    families: Families, tmp_path: Path
) -> None:
    """They named no class."""
    recipe, merges = mixture_of(families("llama"), share=0.3).recipe()
    for name, one in (("old", replace(recipe, architecture=None)), ("new", recipe)):
        (tmp_path / name).mkdir()
        save(one, tmp_path / name / "recipe.yaml", merges)
        evomerge.merge(tmp_path / name / "recipe.yaml", tmp_path / name / "out")
    old, new = (load_file(tmp_path / one / "out/model.safetensors") for one in ("old", "new"))
    assert old.keys() == new.keys()
    assert all(torch.equal(tensor, new[name]) for name, tensor in old.items())


def stored_as(family: Family, folder: Path, dtype: torch.dtype | None, said: str | None) -> Family:
    """Copy a family whose base is stored in another dtype; as a pickle where it is None."""
    for model in family.models:
        copy = shutil.copytree(model, folder / Path(model).name)
        weights = load_file(copy / "model.safetensors")
        config = json.loads((copy / "config.json").read_text())
        if dtype is None:
            torch.save(weights, copy / "pytorch_model.bin")
            (copy / "model.safetensors").unlink()
        elif model == family.base:
            weights = {name: tensor.to(dtype) for name, tensor in weights.items()}
            save_file(weights, copy / "model.safetensors", {"format": "pt"})
            config = {k: v for k, v in config.items() if k not in ("dtype", "torch_dtype")}
            config |= {} if said is None else {"dtype": said}
        (copy / "config.json").write_text(json.dumps(config))
    base, *experts = (str(folder / Path(model).name) for model in family.models)
    return Family(base, tuple(experts))


@pytest.mark.parametrize("said", ["bfloat16", None])
def test_without_a_dtype_the_result_has_the_base_s(
    said: str | None, families: Families, tmp_path: Path
) -> None:
    family = stored_as(families("llama"), tmp_path, torch.bfloat16, said)
    recipe = written(family, "cheap_embed", tmp_path, dtype=None)
    evomerge.merge(recipe, tmp_path / "ours")
    ours = load_file(tmp_path / "ours" / "model.safetensors")
    assert {tensor.dtype for tensor in ours.values()} == {torch.bfloat16}
    assert AutoConfig.from_pretrained(tmp_path / "ours").dtype == torch.bfloat16
    if said is not None:
        by_mergekit(recipe, tmp_path / "theirs")
        theirs = load_file(next((tmp_path / "theirs").glob("*.safetensors")))
        assert {tensor.dtype for tensor in theirs.values()} == {torch.bfloat16}


@pytest.mark.parametrize("mode", ["hidden", "cheap_embed"])
def test_pickles_are_accepted_for_the_gates_too(
    mode: str, families: Families, tmp_path: Path
) -> None:
    family = stored_as(families("llama"), tmp_path, None, None)
    recipe = written(family, mode, tmp_path)
    with pytest.raises(ModelError, match="pickle"):
        evomerge.merge(recipe, tmp_path / "out")
    evomerge.merge(recipe, tmp_path / "out", allow_pickle=True)
    assert "model.layers.0.mlp.gate.weight" in tensors(tmp_path / "out")
