"""Adapter folders as PEFT and its users write them: what is read, and what is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import (
    IA3Config,
    LoHaConfig,
    LoraConfig,
    PeftModel,
    PromptTuningConfig,
    TrainableTokensConfig,
    VeraConfig,
    get_peft_model,
)
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from evomerge.candidate import Recipe, Source
from evomerge.errors import ModelError
from evomerge.merge.checkpoint import open_checkpoint
from evomerge.merge.saving import save

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning:transformers", "ignore::UserWarning", "ignore::RuntimeWarning:peft"
)


def written(base: str, folder: Path, config: object) -> dict[str, torch.Tensor]:
    """Save a random adapter, and return what PEFT makes of base and adapter."""
    torch.manual_seed(0)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
    return dict(loaded.merge_and_unload().state_dict()) if isinstance(config, LoraConfig) else {}


def lora(**options: object) -> LoraConfig:
    return LoraConfig(task_type="CAUSAL_LM", **{"r": 4, "target_modules": ["q_proj"], **options})


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("gpt2")
    config = GPT2Config(
        vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=32, tie_word_embeddings=False
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("qwen2", {"target_modules": ["q_proj", "v_proj"], "bias": "lora_only"}),
        ("qwen2", {"target_modules": ["q_proj"], "bias": "all"}),
        ("qwen2", {"target_modules": ["q_proj"], "layers_to_transform": [1]}),
        ("qwen2", {"trainable_token_indices": [5, 2]}),
        ("qwen2", {"init_lora_weights": "gaussian", "use_rslora": True}),
        ("gpt2", {"target_modules": ["c_attn"], "bias": "all"}),
        ("gpt2", {"target_modules": ["c_proj", "lm_head"]}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_tensors_equal_peft(family, options, qwen2_family, gpt2, tmp_path):
    base = gpt2 if family == "gpt2" else qwen2_family.base
    expected = written(base, tmp_path / "lora", lora(**options))
    expert = open_checkpoint(f"{base}+{tmp_path / 'lora'}")
    plain = open_checkpoint(base)
    changed = [
        name for name in expert.tensors if not torch.equal(expert.tensor(name), plain.tensor(name))
    ]
    assert changed
    for name in expert.tensors:
        scale = expected[name].abs().max().item()
        assert (expert.tensor(name) - expected[name]).abs().max().item() <= 1e-6 * scale, name


def test_a_pickle_is_read_only_where_it_is_allowed(llama_family, tmp_path):
    expected = written(llama_family.base, tmp_path / "lora", lora())
    file = tmp_path / "lora" / "adapter_model.safetensors"
    torch.save(load_file(file), file.with_suffix(".bin"))
    file.unlink()
    name = f"{llama_family.base}+{tmp_path / 'lora'}"
    with pytest.raises(ModelError, match=r"only a PyTorch pickle .*--allow-pickle") as caught:
        open_checkpoint(name)
    assert "\n" not in str(caught.value)
    recipe = Recipe(method="passthrough", models=(Source(name),), dtype="float32")
    save(recipe, tmp_path / "out", allow_pickle=True)
    for key, tensor in load_file(tmp_path / "out" / "model.safetensors").items():
        assert torch.allclose(tensor, expected[key], atol=1e-6)


class Code:
    """What a pickle must not be able to run."""

    def __reduce__(self) -> object:
        return (print, ("run",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"base_model.model.x.lora_A.weight": Code()}, "cannot be read as a PyTorch file"),
        ({"weights": {"a": torch.ones(1)}}, "something else than tensors"),
        (None, "cannot be read as a PyTorch file"),
    ],
)
def test_a_pickle_that_is_no_adapter(content, message, llama_family, tmp_path, capsys):
    written(llama_family.base, tmp_path / "lora", lora())
    file = tmp_path / "lora" / "adapter_model.safetensors"
    file.unlink()
    pickle = file.with_suffix(".bin")
    if content is None:
        pickle.write_bytes(b"no pickle")
    else:
        torch.save(content, pickle)
    with pytest.raises(ModelError, match=message) as caught:
        open_checkpoint(f"{llama_family.base}+{tmp_path / 'lora'}", allow_pickle=True)
    assert "\n" not in str(caught.value)
    assert "run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (IA3Config(task_type="CAUSAL_LM"), "peft_type is IA3; only LORA"),
        (LoHaConfig(r=2, target_modules=["q_proj"]), "peft_type is LOHA; only LORA"),
        (VeraConfig(r=2, target_modules=["q_proj"]), "peft_type is VERA; only LORA"),
        (
            PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
            "peft_type is PROMPT_TUNING; only LORA",
        ),
        (TrainableTokensConfig(token_indices=[3]), "peft_type is TRAINABLE_TOKENS; only LORA"),
        (lora(use_dora=True), "use_dora: DoRA is not supported"),
        (lora(init_lora_weights="pissa"), "init_lora_weights: pissa, which trains on a base"),
        (lora(init_lora_weights="olora"), "init_lora_weights: olora, which trains on a base"),
        (lora(target_modules=[], target_parameters=["q_proj.weight"]), "target_parameters: LoRA"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_kinds_are_refused_by_name(config, message, llama_family, tmp_path):
    written(llama_family.base, tmp_path / "lora", config)
    with pytest.raises(ModelError, match=message) as caught:
        open_checkpoint(f"{llama_family.base}+{tmp_path / 'lora'}")
    assert "\n" not in str(caught.value)


def edit(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes), encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"a_later_invention": {"x": 1}}, "a_later_invention: this setting is not supported"),
        ({"trainable_token_indices": [3, 4]}, "holds 3 trained rows .* names 2"),
        ({"trainable_token_indices": {"wte": [3, 4, 9]}}, "holds 3 trained rows .* names 0"),
        ({"trainable_token_indices": [3, 4, 999]}, r"trains row 999 of .* 259 rows"),
        ({"trainable_token_indices": {"embed_tokens": 3}}, "expected a list of rows"),
        ({"lora_alpha": "x"}, "lora_alpha: found 'x', expected a number"),
        ({"alpha_pattern": ["q_proj"]}, "alpha_pattern: found .* expected a mapping of regular"),
        ({"alpha_pattern": {"(": 4}}, "alpha_pattern: found .* expected a mapping of regular"),
        ({"alpha_pattern": {"q_proj": None}}, "alpha_pattern: found .* expected a mapping"),
        ({"modules_to_save": "embed_tokens"}, "modules_to_save: found .* expected a list"),
    ],
)
def test_settings_that_are_not_understood(changes, message, llama_family, tmp_path):
    written(llama_family.base, tmp_path / "lora", lora(trainable_token_indices=[3, 4, 9]))
    edit(tmp_path / "lora", **changes)
    with pytest.raises(ModelError, match=message):
        open_checkpoint(f"{llama_family.base}+{tmp_path / 'lora'}")


def test_an_empty_setting_of_a_later_release_is_no_obstacle(llama_family, tmp_path):
    written(llama_family.base, tmp_path / "lora", lora())
    edit(tmp_path / "lora", a_later_invention=None)
    open_checkpoint(f"{llama_family.base}+{tmp_path / 'lora'}")


def test_a_square_weight_of_a_linear_layer_is_not_turned(llama_family, tmp_path):
    expected = written(llama_family.base, tmp_path / "lora", lora(target_modules=["o_proj"]))
    name = "model.layers.0.self_attn.o_proj.weight"
    ours = open_checkpoint(f"{llama_family.base}+{tmp_path / 'lora'}").tensor(name)
    assert torch.allclose(ours, expected[name], atol=1e-6)
