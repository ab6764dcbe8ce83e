"""Adapters on models with tied and with free output heads, against what PEFT computes when it loads them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from evomerge.candidate import Recipe, Source
from evomerge.errors import ModelError
from evomerge.merge.checkpoint import open_checkpoint
from evomerge.merge.family import check_family
from evomerge.merge.live import LiveModel
from evomerge.merge.saving import save

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning:transformers", "ignore::UserWarning", "ignore::RuntimeWarning:peft"
)
TOKENS = torch.arange(3, 40).view(1, -1)
ROWS = [3, 4, 9]
CASES = {
    "saved copies": ({}, True),
    "embeddings trained": ({"modules_to_save": ["embed_tokens"]}, "auto"),
    "head trained": ({"modules_to_save": ["lm_head"]}, "auto"),
    "both trained": ({"modules_to_save": ["embed_tokens", "lm_head"]}, "auto"),
    "trained as one": (
        {"modules_to_save": ["embed_tokens", "lm_head"], "ensure_weight_tying": True},
        "auto",
    ),
    "lora on the embeddings": ({"more": ["embed_tokens"]}, "auto"),
    "lora on the head": ({"more": ["lm_head"]}, "auto"),
    "lora on both": ({"more": ["embed_tokens", "lm_head"]}, "auto"),
    "lora as one": ({"more": ["embed_tokens"], "ensure_weight_tying": True}, "auto"),
    "rows": ({"trainable_token_indices": ROWS}, "auto"),
    "rows of both": (
        {"trainable_token_indices": {"embed_tokens": ROWS, "lm_head": [3, 5]}},
        "auto",
    ),
    "rows and lora on the head": (
        {"trainable_token_indices": {"embed_tokens": ROWS}, "more": ["lm_head"]},
        "auto",
    ),
}
STAY_TIED = {"saved copies", "trained as one", "lora as one", "rows"}


def trained(base: str, folder: Path, options: dict[str, object], saved: object) -> torch.Tensor:
    """Save a random adapter, and return the logits of the base with the adapter loaded."""
    options = dict(options)
    targets = ["q_proj", *options.pop("more", [])]
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=targets, **options)
    torch.manual_seed(7)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder, save_embedding_layers=saved)
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
    with torch.no_grad():
        return loaded(TOKENS).logits


def whole(base: str, expert: str) -> Recipe:
    return Recipe(
        method="task_arithmetic",
        models=(Source(expert),),
        base_model=base,
        parameters={"weight": 1.0},
        dtype="float32",
    )


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("case", CASES)
def test_the_merged_model_computes_what_peft_computes(
    case, tied, llama_family, qwen2_family, tmp_path
):
    base = (qwen2_family if tied else llama_family).base
    expected = trained(base, tmp_path / "lora", *CASES[case])
    expert = f"{base}+{tmp_path / 'lora'}"
    save(whole(base, expert), tmp_path / "out")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    live = LiveModel((base, expert), dtype="float32", resident_bytes=0)
    live.write(whole(base, expert))
    for module in (merged, live.module):
        with torch.no_grad():
            worst = (module(TOKENS).logits - expected).abs().max().item()
        assert worst <= 2e-6 * expected.abs().max().item()
    stays_tied = tied and case in STAY_TIED
    assert merged.config.tie_word_embeddings == stays_tied
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert ("lm_head.weight" in stored) != stays_tied


def test_other_models_give_their_tied_head_as_a_head(qwen2_family, tmp_path):
    base, other = qwen2_family.base, qwen2_family.experts[0]
    trained(base, tmp_path / "lora", {"modules_to_save": ["lm_head"]}, "auto")
    expert = f"{base}+{tmp_path / 'lora'}"
    recipe = Recipe(
        method="linear",
        models=tuple(Source(model, parameters={"weight": 0.5}) for model in (other, expert)),
        dtype="float32",
    )
    save(recipe, tmp_path / "out")
    stored = load_file(tmp_path / "out" / "model.safetensors")
    embeddings = open_checkpoint(other).tensor("model.embed_tokens.weight")
    head = load_file(tmp_path / "lora" / "adapter_model.safetensors")[
        "base_model.model.lm_head.weight"
    ]
    assert torch.allclose(stored["lm_head.weight"], (embeddings + head) / 2, atol=1e-7)
    base_embeddings = open_checkpoint(base).tensor("model.embed_tokens.weight")
    assert torch.allclose(
        stored["model.embed_tokens.weight"], (embeddings + base_embeddings) / 2, atol=1e-7
    )


def test_a_head_that_follows_trained_rows_differs_from_that_of_the_base(qwen2_family, tmp_path):
    """Another expert has a head of its own, so the tied one becomes a tensor, with its rows trained."""
    base = qwen2_family.base
    trained(base, tmp_path / "rows", *CASES["rows"])
    trained(base, tmp_path / "head", *CASES["lora on the head"])
    recipe = Recipe(
        method="task_arithmetic",
        models=tuple(
            Source(f"{base}+{tmp_path / name}", parameters={"weight": weight})
            for name, weight in (("rows", 1.0), ("head", 0.0))
        ),
        base_model=base,
        dtype="float32",
    )
    save(recipe, tmp_path / "out")
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(stored["lm_head.weight"], stored["model.embed_tokens.weight"])


def test_a_copy_of_the_head_in_the_file_follows_the_embeddings(qwen2_family, tmp_path):
    folder = tmp_path / "copy"
    AutoModelForCausalLM.from_pretrained(qwen2_family.base).save_pretrained(folder)
    stored = load_file(folder / "model.safetensors")
    stored["lm_head.weight"] = stored["model.embed_tokens.weight"].clone()
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    trained(str(folder), tmp_path / "lora", *CASES["rows"])
    expert = open_checkpoint(f"{folder}+{tmp_path / 'lora'}")
    assert "lm_head.weight" not in expert.tensors
    check_family(open_checkpoint(str(folder)), [expert])


def test_embeddings_of_another_width_are_refused(qwen2_family, llama_family, tmp_path):
    trained(qwen2_family.base, tmp_path / "lora", *CASES["both trained"])
    path = tmp_path / "lora" / "adapter_model.safetensors"
    stored = load_file(path)
    key = "base_model.model.lm_head.weight"
    save_file(stored | {key: stored[key][:, :-1].contiguous()}, path)
    with pytest.raises(ModelError, match=r"adapts lm_head\.weight of shape"):
        open_checkpoint(f"{qwen2_family.base}+{tmp_path / 'lora'}")
