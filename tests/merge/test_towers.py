"""Models that see besides: their language part is found by name, and all of their parts are merged."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    AutoTokenizer,
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2Config,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    SiglipVisionConfig,
)

from evomerge.api.activations import statistics
from evomerge.candidate import Conditional, Recipe, Slice, Source, Vocabulary
from evomerge.errors import ModelError
from evomerge.inference.forward import Forward
from evomerge.inference.states import mean_states
from evomerge.merge.adapter_output import save_adapter
from evomerge.merge.checkpoint import open_checkpoint
from evomerge.merge.heads import is_tied
from evomerge.merge.layout import Layout
from evomerge.merge.live import LiveModel
from evomerge.merge.saving import save
from evomerge.merge.statistics import MERGED

pytestmark = pytest.mark.filterwarnings("ignore")
TEXT = {
    "vocab_size": 259,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SIGHT = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
SIGHT |= {"num_attention_heads": 2, "image_size": 8, "patch_size": 4}
BLOCKS = {"depth": 2, "hidden_size": 32, "num_heads": 2, "patch_size": 4}
TOKENS = {"image_token_id": 3, "video_token_id": 4}
MULTI = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
KINDS = {
    "llava": (
        LlavaForConditionalGeneration,
        LlavaConfig(
            text_config=LlamaConfig(**TEXT),
            vision_config=CLIPVisionConfig(**SIGHT),
            image_token_index=3,
        ),
        "vision_tower",
    ),
    "gemma3": (
        Gemma3ForConditionalGeneration,
        Gemma3Config(
            text_config=Gemma3TextConfig(**TEXT, head_dim=8),
            vision_config=SiglipVisionConfig(**SIGHT, vision_use_head=False),
            mm_tokens_per_image=4,
            image_token_index=3,
        ),
        "vision_tower",
    ),
    "qwen2_vl": (
        Qwen2VLForConditionalGeneration,
        Qwen2VLConfig(
            text_config={**TEXT, "rope_parameters": MULTI},
            vision_config={**BLOCKS, "embed_dim": 16},
            tie_word_embeddings=True,
            **TOKENS,
        ),
        "visual",
    ),
    "qwen3_5": (
        Qwen3_5ForConditionalGeneration,
        Qwen3_5Config(
            text_config={
                **TEXT,
                "head_dim": 8,
                "linear_key_head_dim": 8,
                "linear_value_head_dim": 8,
                "linear_num_key_heads": 2,
                "linear_num_value_heads": 2,
                "layer_types": ["linear_attention", "full_attention"],
                "rope_parameters": MULTI | {"partial_rotary_factor": 1.0},
            },
            vision_config={
                **BLOCKS,
                "hidden_size": 16,
                "intermediate_size": 24,
                "out_hidden_size": 32,
                "num_position_embeddings": 16,
            },
            **TOKENS,
        ),
        "visual",
    ),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request, build_family, tmp_path_factory):
    """A family, and a part of the names of what is no part of the language model."""
    cls, config, tower = KINDS[request.param]
    family = build_family(tmp_path_factory.mktemp(request.param), cls, config, experts=2)
    (Path(family.base) / "preprocessor_config.json").write_text('{"size": 8}')
    return family, tower


def apart(family, tower: str, **changes: object) -> Recipe:
    """Language parts are merged, towers are the base's."""
    weight = (Conditional(0.0, tower), Conditional(0.0, "projector"), Conditional(0.4))
    return Recipe(
        "task_arithmetic",
        tuple(map(Source, family.experts)),
        base_model=family.base,
        parameters={"weight": weight},
        dtype="float32",
        **changes,
    )


def loaded(folder: Path | str) -> dict[str, torch.Tensor]:
    model, report = AutoModelForMultimodalLM.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    return model.state_dict()


def test_all_parts_are_merged_and_the_towers_apart_where_filters_say_so(kind, tmp_path):
    family, tower = kind
    save(apart(family, tower), tmp_path / "out")
    base, one, two, merged = map(loaded, (*family.models, tmp_path / "out"))
    assert merged.keys() == base.keys()
    for name, tensor in merged.items():
        if tower in name or "projector" in name:
            assert torch.equal(tensor, base[name]), name
        else:
            expected = base[name] + 0.4 * (one[name] - base[name]) + 0.4 * (two[name] - base[name])
            assert torch.allclose(tensor, expected, atol=1e-5), name
    assert json.loads((tmp_path / "out" / "preprocessor_config.json").read_text()) == {"size": 8}


def test_the_towers_are_merged_like_all_else_where_nothing_is_said(kind, tmp_path):
    family, _ = kind
    merge = Recipe("linear", tuple(map(Source, family.experts)), parameters={"weight": 1.0})
    save(merge, tmp_path / "out")
    one, two, merged = map(loaded, (*family.experts, tmp_path / "out"))
    for name, tensor in merged.items():
        assert torch.allclose(tensor, (one[name] + two[name]) / 2, atol=1e-6), name


def test_the_layers_are_the_language_models_and_a_tower_stands_before_them(kind):
    family, tower = kind
    checkpoint = open_checkpoint(family.base)
    layout = Layout.of(checkpoint)
    assert tower not in layout.prefix
    assert layout.num_layers == 2
    towers = {name for name in checkpoint.tensors if tower in name}
    assert towers
    assert towers <= set(layout.first)
    assert not any("norm" in name and name not in towers for name in layout.first if tower in name)
    model = AutoModelForMultimodalLM.from_pretrained(family.base)
    shared = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert is_tied(checkpoint.config) == shared


@pytest.mark.parametrize("kind", ["qwen3_5"], indirect=True)
def test_it_agrees_with_mergekit(kind, mergekit, tmp_path, assert_agree):
    """It loses LLaVA's language model, and wants of the others what transformers no longer writes."""
    family, tower = kind
    own = {"weight": (Conditional(0.2, tower), Conditional(0.5)), "density": 0.6}
    merge = Recipe(
        "ties",
        tuple(Source(model, parameters=own) for model in family.experts),
        base_model=family.base,
        dtype="float32",
    )
    mergekit(merge)
    save(merge, tmp_path / "out")
    assert_agree(loaded(tmp_path / "out"), loaded(tmp_path / "mergekit"))


def test_adapters_name_the_modules_whatever_the_files_say(kind, tmp_path):
    family, _ = kind
    model = AutoModelForMultimodalLM.from_pretrained(family.base)
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(model, config)
    adapted.save_pretrained(tmp_path / "lora")
    source = Source(f"{family.base}+{tmp_path / 'lora'}", parameters={"weight": 1.0})
    save(Recipe("linear", (source,), dtype="float32"), tmp_path / "out")
    expected, base = adapted.merge_and_unload().state_dict(), loaded(family.base)
    merged = loaded(tmp_path / "out")
    assert any(not torch.equal(tensor, base[name]) for name, tensor in merged.items())
    for name, tensor in merged.items():
        assert torch.allclose(tensor, expected[name], atol=1e-6), name


@pytest.mark.parametrize("kind", ["llava"], indirect=True)
def test_a_merge_as_an_adapter(kind, tmp_path):
    family, tower = kind
    save(apart(family, tower), tmp_path / "out")
    made = save_adapter(apart(family, tower), tmp_path / "lora", rank=32)
    assert not any(tower in name for name in made.left)  # they are the base's
    model = AutoModelForMultimodalLM.from_pretrained(family.base)
    adapted = peft.PeftModel.from_pretrained(model, tmp_path / "lora").merge_and_unload()
    expected = loaded(tmp_path / "out")
    for name, tensor in adapted.state_dict().items():
        if "_proj" in name:
            assert torch.allclose(tensor, expected[name], atol=1e-5), name


def test_activations_are_kept_by_the_names_in_the_files(kind, tmp_path):
    """Of the language model's layers only: text enters no others."""
    family, tower = kind
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "abc"}\n')
    file = tmp_path / "s.safetensors"
    statistics(family.experts[:1], tmp_path / "prompts.jsonl", file, base=family.base)
    checkpoint, kept = open_checkpoint(family.base), load_file(file)
    found = {name.split("/", 1)[1] for name in kept if not name.startswith(MERGED)}
    assert found == {name.split("/", 2)[2] for name in kept if name.startswith(MERGED)}
    assert found <= checkpoint.tensors.keys()
    layout = Layout.of(checkpoint)
    layers = {layout.layer_of(name) for name in found}
    assert layers == {0, 1}
    assert not any(tower in name for name in found)


def test_layers_are_stacked(kind, tmp_path):
    family, _ = kind
    if "qwen3_5" in family.base:
        pytest.skip("its two layers are of two kinds")
    slices = tuple(Slice((Source(model, (0, 2)),)) for model in family.models[:2])
    save(Recipe("passthrough", slices=slices, dtype="float32"), tmp_path / "out")
    base, merged = loaded(family.base), loaded(tmp_path / "out")
    assert {name for name in base if "visual" in name or "vision" in name} <= merged.keys()
    text = json.loads((tmp_path / "out" / "config.json").read_text())["text_config"]
    assert text["num_hidden_layers"] == 4


def test_a_live_model_is_the_saved_one_and_has_gradients(kind, tmp_path):
    family, tower = kind
    live = LiveModel(family.models, dtype="float32")
    merge = apart(family, tower)
    live.write(merge)
    save(merge, tmp_path / "out")
    for name, tensor in loaded(tmp_path / "out").items():
        assert torch.equal(live.module.state_dict()[name], tensor), name
    tokens = torch.tensor([[5, 6, 7, 8]])
    for recompute in (False, True):
        with live.gradients(merge, recompute=recompute) as tape:
            live.module(input_ids=tokens, use_cache=False).logits.sum().backward()
        found = tape.gradients()
        assert any(any(each.own["weight"]) for each in found.values())
        assert not any(any(found[name].own["weight"]) for name in found if tower in name)


def test_text_is_read_as_the_model_itself_reads_it(kind):
    module = LiveModel(kind[0].models, dtype="float32").module
    tokens = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        found = Forward(module)(tokens, torch.tensor([1, 3]))
        expected = module(input_ids=tokens).logits[0, [1, 3]]
        states = mean_states(module, tokens.tolist())[0]
        own = module(input_ids=tokens, output_hidden_states=True).hidden_states
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(states, torch.stack([each[0].mean(0) for each in own]), atol=1e-5)


@pytest.fixture
def plain(kind, build_family, tmp_path):
    """Plain language models of the size of the other's language part; None where transformers has none."""
    family, _ = kind
    config = open_checkpoint(family.base).config
    text = config.get_text_config()
    if text.model_type == "qwen2_vl_text":
        text = Qwen2Config(**TEXT, tie_word_embeddings=True)
    cls = MODEL_FOR_CAUSAL_LM_MAPPING[type(text)]
    text = copy.deepcopy(text)
    text.tie_word_embeddings = is_tied(config)
    return build_family(tmp_path / "plain", cls, text, experts=2, seed=5).models


def test_plain_language_models_are_merged_into_the_language_part(kind, plain, tmp_path):
    family, tower = kind
    model = AutoModelForCausalLM.from_pretrained(plain[0])
    lora = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(model, lora)
    adapted.save_pretrained(tmp_path / "lora")
    names = (*plain[1:], f"{plain[0]}+{tmp_path / 'lora'}")
    models = tuple(Source(model, parameters={"weight": 0.3}) for model in names)
    merge = Recipe("task_arithmetic", models, base_model=family.base, dtype="float32")
    save(merge, tmp_path / "out")
    base, merged = loaded(family.base), loaded(tmp_path / "out")
    experts = [AutoModelForCausalLM.from_pretrained(model).state_dict() for model in plain[1:]]
    experts.append(adapted.merge_and_unload().state_dict())
    changed = 0
    for name, tensor in merged.items():
        own = [expert.get(name.replace("language_model.", "")) for expert in experts]
        if tower in name or "projector" in name:
            assert torch.equal(tensor, base[name]), name
        else:
            expected = base[name] + 0.3 * sum(each - base[name] for each in own)
            assert torch.allclose(tensor, expected, atol=1e-5), name
            changed += 1
    assert changed >= len(experts[0]) - 1  # a tied head
    live = LiveModel([family.base, *names], dtype="float32")
    live.write(merge)
    for name, tensor in live.module.state_dict().items():
        assert torch.equal(tensor, merged[name]), name


def test_a_language_model_of_another_size_does_not_fit(kind, llama_family, tmp_path):
    family, _ = kind
    merge = Recipe(
        "task_arithmetic",
        (Source(llama_family.base, parameters={"weight": 1.0}),),
        base_model=family.base,
    )
    with pytest.raises(ModelError, match=r"which the base|the base's") as caught:
        save(merge, tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_a_token_that_one_of_them_added_is_kept(kind, tmp_path):
    family, tower = kind
    tokens = AutoTokenizer.from_pretrained(family.experts[1])
    tokens.add_special_tokens({"additional_special_tokens": ["<new>"]})
    model = AutoModelForMultimodalLM.from_pretrained(family.experts[1])
    model.resize_token_embeddings(len(tokens), mean_resizing=False)
    model.save_pretrained(tmp_path / "longer")
    tokens.save_pretrained(tmp_path / "longer")
    other = replace(family, experts=(family.experts[0], str(tmp_path / "longer")))
    merge = apart(other, tower, vocabulary=Vocabulary("union"))
    save(merge, tmp_path / "out")
    merged = loaded(tmp_path / "out")
    rows = [tensor.shape[0] for name, tensor in merged.items() if "embed_tokens" in name]
    assert rows == [len(tokens)]
    live = LiveModel(other.models, dtype="float32", vocabulary=Vocabulary("union"))
    live.write(merge)
    for name, tensor in live.module.state_dict().items():
        assert torch.equal(tensor, merged[name]), name
