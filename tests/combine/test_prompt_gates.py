"""mergekit-moe's files: what mergekit 0.1.5 makes of them is the oracle."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import evomerge
from evomerge import yaml_file
from tests.combine.mixtures import ARCHITECTURES
from tests.conftest import Family

Families = Callable[[str], Family]


def written(
    family: Family, mode: str, folder: Path, *, shared: bool = False, more: str = ""
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
    data |= {"experts_per_token": 1, "dtype": "float32"}
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
