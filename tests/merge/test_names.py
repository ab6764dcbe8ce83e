"""One model, however it is stored: base prefix and ignored buffers, by what transformers loads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    HrmTextConfig,
    HrmTextForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    MixtralConfig,
    MixtralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from evomerge.candidate import Recipe, Slice, Source
from evomerge.errors import ModelError
from evomerge.merge.checkpoint import open_checkpoint
from evomerge.merge.family import check_family
from evomerge.merge.live import LiveModel
from evomerge.merge.names import model_names
from evomerge.merge.saving import save

SMALL = {"vocab_size": 259, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GPT2 = GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=32, **SMALL)
NEOX = GPTNeoXConfig(
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=32,
    **SMALL,
)
LLAMA = LlamaConfig(
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=32,
    **SMALL,
)
MIXTRAL = MixtralConfig(
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    num_local_experts=2,
    max_position_embeddings=32,
    **SMALL,
)
OPT = OPTConfig(
    hidden_size=16,
    ffn_dim=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=32,
    word_embed_proj_dim=16,
    **SMALL,
)
BLOOM = BloomConfig(hidden_size=16, n_layer=2, n_head=2, **SMALL)
MASK = torch.ones(1, 1, 32, 32, dtype=torch.bool).tril()
KINDS = {
    "gpt2": (
        GPT2LMHeadModel,
        GPT2,
        "transformer.",
        {
            "transformer.h.{}.attn.bias": MASK.float(),
            "transformer.h.{}.attn.masked_bias": torch.tensor(-1e4),
        },
    ),
    "neox": (
        GPTNeoXForCausalLM,
        NEOX,
        "gpt_neox.",
        {
            "gpt_neox.layers.{}.attention.bias": MASK.to(torch.uint8),
            "gpt_neox.layers.{}.attention.masked_bias": torch.tensor(-1e9),
            "gpt_neox.layers.{}.attention.rotary_emb.inv_freq": torch.ones(2),
        },
    ),
    "llama": (
        LlamaForCausalLM,
        LLAMA,
        "model.",
        {"model.layers.{}.self_attn.rotary_emb.inv_freq": torch.rand(4)},
    ),
    "mixtral": (
        MixtralForCausalLM,
        MIXTRAL,
        "model.",
        {"model.layers.{}.self_attn.rotary_emb.inv_freq": torch.rand(4)},
    ),
    "opt": (OPTForCausalLM, OPT, "model.", {}),
    "bloom": (BloomForCausalLM, BLOOM, "transformer.", {}),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request, build_family, tmp_path_factory):
    """A family, its base prefix, and buffers as older files of it hold them."""
    cls, config, prefix, buffers = KINDS[request.param]
    family = build_family(tmp_path_factory.mktemp(request.param), cls, config, experts=2)
    per_layer = {name.format(i): tensor for name, tensor in buffers.items() for i in range(2)}
    return family, prefix, per_layer


def restored(folder: str, copy: Path, change) -> str:
    """Copy a model and store its tensors otherwise."""
    shutil.copytree(folder, copy)
    weights = load_file(copy / "model.safetensors")
    changed = {name: tensor.clone() for name, tensor in change(weights).items()}
    save_file(changed, copy / "model.safetensors", metadata={"format": "pt"})
    return str(copy)


def with_buffers(buffers):
    return lambda weights: weights | buffers


def without_prefix(prefix, buffers):
    def change(weights):
        return {name.removeprefix(prefix): tensor for name, tensor in (weights | buffers).items()}

    return change


def ties(base: str, *experts: str) -> Recipe:
    return Recipe(
        method="ties",
        models=tuple(Source(expert) for expert in experts),
        base_model=base,
        parameters={"weight": 0.5, "density": 0.5},
        dtype="float32",
    )


def loaded(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def same(left, right) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_a_model_is_the_same_however_it_is_stored(kind, tmp_path):
    family, prefix, buffers = kind
    plain = open_checkpoint(family.base)
    for number, change in enumerate((with_buffers(buffers), without_prefix(prefix, buffers))):
        other = restored(family.base, tmp_path / str(number), change)
        opened = open_checkpoint(other)
        assert opened.tensors == plain.tensors
        assert all(torch.equal(opened.tensor(n), plain.tensor(n)) for n in plain.tensors)
        assert not opened.missing
        assert same(loaded(Path(other)), loaded(Path(family.base)))  # as transformers sees it


def test_base_and_experts_may_differ_in_it(kind, tmp_path):
    """Whichever of them has prefix or buffers, the merge is that of the plain files, in plain names."""
    family, prefix, buffers = kind
    base, one, two = family.models
    odd = [
        restored(base, tmp_path / "base", without_prefix(prefix, {})),
        restored(one, tmp_path / "one", with_buffers(buffers)),
        restored(two, tmp_path / "two", without_prefix(prefix, buffers)),
    ]
    save(ties(base, one, two), tmp_path / "plain")
    expected = load_file(tmp_path / "plain" / "model.safetensors")
    for number, recipe in enumerate([ties(odd[0], *odd[1:]), ties(base, *odd[1:])]):
        out = tmp_path / f"out{number}"
        save(recipe, out)
        assert same(load_file(out / "model.safetensors"), expected)
        assert same(loaded(out), loaded(tmp_path / "plain"))


@pytest.mark.parametrize("kind", ["gpt2", "llama"], indirect=True)
def test_a_live_model_is_written_by_name_and_has_gradients(kind, tmp_path):
    family, prefix, buffers = kind
    base = restored(family.base, tmp_path / "base", without_prefix(prefix, buffers))
    live = LiveModel([base, *family.experts], dtype="float32")
    recipe = ties(base, *family.experts)
    with live.gradients(recipe):
        pass
    save(recipe, tmp_path / "out")
    assert same(dict(live.module.state_dict()), loaded(tmp_path / "out"))


@pytest.mark.parametrize("kind", ["gpt2"], indirect=True)
def test_slices_and_layouts_know_the_names(kind, tmp_path):
    family, prefix, buffers = kind
    base = restored(family.base, tmp_path / "base", without_prefix(prefix, buffers))
    slices = tuple(Slice((Source(base, part),)) for part in ((0, 2), (1, 2)))
    save(Recipe(method="passthrough", slices=slices), tmp_path / "out")
    state = loaded(tmp_path / "out")
    assert torch.equal(
        state["transformer.h.2.mlp.c_fc.weight"],
        loaded(Path(base))["transformer.h.1.mlp.c_fc.weight"],
    )


@pytest.mark.parametrize("kind", ["gpt2"], indirect=True)
def test_adapters_name_the_modules_whatever_the_file_says(kind, tmp_path):
    family, prefix, buffers = kind
    base = restored(family.base, tmp_path / "base", without_prefix(prefix, buffers))
    module = "transformer.h.0.attn.c_attn"
    pair = {"lora_A.weight": torch.randn(2, 16), "lora_B.weight": torch.randn(48, 2)}
    adapter = tmp_path / "lora"
    adapter.mkdir()
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "fan_in_fan_out": True}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    named = {f"base_model.model.{module}.{key}": tensor for key, tensor in pair.items()}
    save_file(named, adapter / "adapter_model.safetensors")
    change = open_checkpoint(f"{base}+{adapter}").tensor(f"{module}.weight")
    change = change - open_checkpoint(base).tensor(f"{module}.weight")
    expected = (pair["lora_B.weight"] @ pair["lora_A.weight"]).T
    assert torch.allclose(change, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["llama"], indirect=True)
def test_a_tensor_under_both_names_is_refused(kind, tmp_path):
    family, _prefix, _ = kind
    folder = restored(
        family.base, tmp_path / "both", lambda w: w | {"norm.weight": w["model.norm.weight"] + 1}
    )
    with pytest.raises(ModelError, match=r"holds model\.norm\.weight and norm\.weight, which are"):
        open_checkpoint(folder)


@pytest.mark.parametrize("kind", ["llama"], indirect=True)
def test_what_no_rule_knows_is_still_a_difference(kind, tmp_path):
    family, _, _ = kind
    base, one, _ = map(open_checkpoint, family.models)
    extra = restored(
        family.experts[1], tmp_path / "x", lambda w: w | {"model.new.bias": torch.ones(3)}
    )
    with pytest.raises(ModelError, match=r"has model\.new\.bias, which the base"):
        check_family(base, [one, open_checkpoint(extra)])


@pytest.mark.parametrize("kind", ["llama"], indirect=True)
def test_a_base_that_lacks_a_parameter_is_refused(kind, tmp_path):
    family, _, _ = kind

    def change(weights):
        return {name: tensor for name, tensor in weights.items() if "layers.1.mlp" not in name}

    folder = restored(family.base, tmp_path / "less", change)
    with pytest.raises(
        ModelError, match=r"lacks model\.layers\.1\.mlp\.down_proj\.weight \(and 2 mo"
    ):
        check_family(open_checkpoint(folder), [])


def test_a_tensor_that_is_split_at_loading_gives_all_its_parts(tmp_path):
    """HRM stores gate and up projections, and those of attention, as one tensor each."""
    config = HrmTextConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=32,
        **SMALL,
    )
    HrmTextForCausalLM(config).save_pretrained(tmp_path / "whole")
    weights = load_file(tmp_path / "whole" / "model.safetensors")
    [fused, *_] = [name for name in sorted(weights) if "gqkv_proj" in name]
    check_family(open_checkpoint(str(tmp_path / "whole")), [])
    less = restored(
        str(tmp_path / "whole"),
        tmp_path / "less",
        lambda w: {name: tensor for name, tensor in w.items() if name != fused},
    )
    with pytest.raises(ModelError, match=r"lacks .*\.self_attn\.gate_proj\.weight \(and 3 more\)"):
        check_family(open_checkpoint(less), [])


@pytest.mark.parametrize(("cls", "config"), [(BertModel, BertConfig), (LlamaModel, None)])
def test_bodies_without_a_language_model_are_opened(cls, config, build_family, tmp_path):
    """An encoder, and a body that was saved without its head; nothing of them is taken to be missing."""
    made = (
        LLAMA
        if config is None
        else config(
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            vocab_size=259,
            max_position_embeddings=32,
        )
    )
    family = build_family(tmp_path, cls, made, experts=2)
    save(ties(*family.models), tmp_path / "out")
    merged = cls.from_pretrained(tmp_path / "out", output_loading_info=True)[1]
    assert not merged["missing_keys"]
    assert not merged["unexpected_keys"]


def test_the_names_of_a_model_draw_no_random_numbers():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert model_names(LlamaConfig(hidden_size=24, num_attention_heads=2), trust_remote_code=False)
    assert torch.equal(torch.rand(3), expected)
