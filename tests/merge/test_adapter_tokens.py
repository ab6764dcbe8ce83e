"""Adapters that were trained with new tokens: their embeddings have more rows than the base's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.candidate import Recipe, Source, Vocabulary
from evomerge.errors import ModelError
from evomerge.merge.live import LiveModel
from evomerge.merge.saving import save

pytestmark = pytest.mark.filterwarnings("ignore")
NEW = tuple(f"<new{number}>" for number in range(3))
KINDS = {
    "copies": {},
    "trained": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "rows": {"trainable_token_indices": [259, 261]},
    "lora": {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
}


def trained(base: str, folder: Path, options: dict[str, object], ids: torch.Tensor) -> torch.Tensor:
    """Save a random adapter with new tokens and its tokenizer; return the adapted model's logits."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_special_tokens({"additional_special_tokens": list(NEW)})
    model = AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(len(tokenizer))
    config = LoraConfig(task_type="CAUSAL_LM", **{"r": 4, "target_modules": ["q_proj"], **options})
    adapted = get_peft_model(model, config)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
        adapted.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return adapted(ids).logits


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", KINDS)
def test_new_tokens_of_an_adapter_are_merged(kind, tied, llama_family, qwen2_family, tmp_path):
    base = (qwen2_family if tied else llama_family).base
    ids = torch.tensor([[5, 259, 7, 261, 260, 9]])
    expected = trained(base, tmp_path / "lora", KINDS[kind], ids)
    expert = f"{base}+{tmp_path / 'lora'}"
    recipe = Recipe(
        method="task_arithmetic",
        models=(Source(expert, None, {"weight": 1.0}),),
        base_model=base,
        dtype="float32",
    )
    with pytest.raises(ModelError, match=r"another vocabulary: .* tokenizer_source"):
        save(recipe, tmp_path / "refused")
    for source in ("union", expert):
        asked = Recipe(**{**vars(recipe), "vocabulary": Vocabulary(source)})
        out = tmp_path / f"out-{len(source)}"
        save(asked, out)
        own = AutoTokenizer.from_pretrained(tmp_path / "lora").get_vocab()
        assert AutoTokenizer.from_pretrained(out).get_vocab() == own
        live = LiveModel((base, expert), dtype="float32", vocabulary=asked.vocabulary)
        live.write(asked)
        for module in (AutoModelForCausalLM.from_pretrained(out), live.module):
            with torch.no_grad():
                worst = (module(ids).logits - expected).abs().max().item()
            assert worst <= 2e-6 * expected.abs().max().item()


def test_an_adapter_with_new_tokens_is_a_model_of_its_own(llama_family, tmp_path):
    ids = torch.tensor([[5, 259, 7]])
    expected = trained(llama_family.base, tmp_path / "lora", KINDS["rows"], ids)
    name = f"{llama_family.base}+{tmp_path / 'lora'}"
    live = LiveModel((name,), dtype="float32")
    live.write(Recipe(method="passthrough", models=(Source(name),), dtype="float32"))
    with torch.no_grad():
        assert torch.allclose(live.module(ids).logits, expected, atol=1e-5)
    assert live.tokenizer.convert_tokens_to_ids(NEW[2]) == 261


def test_a_tokenizer_beside_an_adapter_that_leaves_the_embeddings_alone_is_not_taken(
    llama_family, tmp_path
):
    """Its new tokens have no rows."""
    model = AutoModelForCausalLM.from_pretrained(llama_family.base)
    config = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"])
    get_peft_model(model, config).save_pretrained(tmp_path / "lora")
    shutil.copy(Path(llama_family.base) / "tokenizer.json", tmp_path / "lora")
    live = LiveModel((f"{llama_family.base}+{tmp_path / 'lora'}",), dtype="float32")
    base = next(iter(live.checkpoints.values()))
    assert base.tokenizer_folder == Path(llama_family.base)
