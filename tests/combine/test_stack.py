"""Stacks: exactly what they say, live and saved; scales folded into the weights; mergekit builds them too."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file
from torch import nn

from evomerge import api
from evomerge.candidate import Merge, PathStep, Stack
from evomerge.combine.stack import SCALABLE, StackBuilder, content_of, save_stack, scale_fault
from evomerge.errors import MergeError, RecipeError
from evomerge.merge.content import content
from evomerge.merge.live import LiveModel

TOKENS = torch.tensor([[5, 77, 130, 9, 31, 200, 64, 8]])


def parent(model: str) -> Merge:
    return Merge("passthrough", (model,), dtype="float32")


def stack_of(family, *steps: tuple[str, int] | tuple[str, int, float]) -> Stack:
    """A stack over `base`, `one`, `two`, and `mix`, the task arithmetic of both experts."""
    base, one, two = family.models[:3]
    mix = Merge("task_arithmetic", (one, two), base, fixed={"weight": 0.4}, dtype="float32")
    known = {"base": parent(base), "one": parent(one), "two": parent(two), "mix": mix}
    used = dict.fromkeys(name for name, *_ in steps)
    return Stack(
        base, {name: known[name] for name in used}, tuple(PathStep(*step) for step in steps)
    )


def built(stack: Stack, dtype: str = "float32") -> nn.Module:
    return StackBuilder(LiveModel(stack.model_names(), dtype=dtype)).build(stack)


@torch.no_grad()
def logits(module: nn.Module, tokens: torch.Tensor = TOKENS) -> torch.Tensor:
    return module(tokens).logits


def loaded(folder: Path | str, dtype: str = "float32") -> nn.Module:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


@contextmanager
def scaled_inputs(module: nn.Module, scales: list[float]) -> Iterator[None]:
    """Multiply what enters each layer; nothing is folded."""

    def hook(scale):
        def multiply(layer, args, kwargs):
            if args:
                return (args[0] * scale, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": kwargs["hidden_states"] * scale}

        return multiply

    handles = [
        layer.register_forward_pre_hook(hook(scale), with_kwargs=True)
        for layer, scale in zip(module.model.layers, scales, strict=True)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


DEEPER = (("one", 0), ("one", 1), ("two", 1), ("two", 2), ("base", 1), ("two", 3))
HYBRID = (("mix", 0), ("mix", 1), ("two", 1), ("mix", 2), ("mix", 3))


@pytest.mark.parametrize("family", ["llama_family", "qwen2_family"])
def test_all_layers_of_one_parent_are_that_parent_bit_for_bit(family, request, tmp_path):
    family = request.getfixturevalue(family)
    expert = loaded(family.experts[0])
    count = expert.config.num_hidden_layers
    stack = stack_of(family, *(("one", layer) for layer in range(count)))
    save_stack(stack, tmp_path / "out")
    theirs = load_file(Path(family.experts[0]) / "model.safetensors")
    ours = load_file(tmp_path / "out" / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert torch.equal(logits(built(stack)), logits(expert))


@pytest.mark.parametrize(
    "steps",
    [
        DEEPER,
        (("base", 2),),
        (("one", 0), ("two", 3, 0.7), ("two", 3, 1.2), ("one", 1)),
        HYBRID,
        (("one", 0), ("mix", 3, 0.8), ("mix", 3), ("two", 2, 1.1)),
    ],
    ids=["deeper", "one layer", "scaled", "hybrid", "scaled hybrid"],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_live_is_what_is_saved(steps, dtype, llama_family, tmp_path):
    stack = stack_of(llama_family, *steps)
    members = {name: replace(one, dtype=dtype) for name, one in stack.members.items()}
    stack = replace(stack, members=members)
    save_stack(stack, tmp_path / "out")
    saved = loaded(tmp_path / "out", dtype)
    assert saved.config.num_hidden_layers == len(steps)
    live = built(stack, dtype)
    for name, tensor in saved.state_dict().items():
        assert torch.equal(live.state_dict()[name], tensor), name
    assert torch.equal(logits(live), logits(saved))


def test_the_file_beside_it_builds_the_same_bytes_again(llama_family, tmp_path):
    for number, steps in enumerate([DEEPER, HYBRID, (("one", 0), ("mix", 3, 0.8), ("two", 1))]):
        out = tmp_path / str(number)
        save_stack(stack_of(llama_family, *steps), out)
        api.merge(out / "recipe.yaml", tmp_path / f"again{number}")
        again = (tmp_path / f"again{number}" / "model.safetensors").read_bytes()
        assert again == (out / "model.safetensors").read_bytes()
        assert (tmp_path / f"again{number}" / "recipe.yaml").read_text() == (
            out / "recipe.yaml"
        ).read_text()


def test_a_stack_of_a_saved_merge_is_that_of_the_merge(llama_family, tmp_path):
    hybrid = stack_of(llama_family, *HYBRID)
    api.merge(hybrid.members["mix"], tmp_path / "mix")
    of_folder = Stack(
        hybrid.base, {**hybrid.members, "mix": parent(str(tmp_path / "mix"))}, hybrid.path
    )
    assert torch.equal(logits(built(hybrid)), logits(built(of_folder)))


@pytest.mark.parametrize("cache", [True, False])
def test_it_loads_and_writes_in_a_process_without_evomerge(cache, llama_family, tmp_path):
    stack = stack_of(llama_family, *DEEPER)
    save_stack(stack, tmp_path / "out")
    script = (
        "import sys, torch\n"
        "from transformers import AutoModelForCausalLM\n"
        f"model = AutoModelForCausalLM.from_pretrained({str(tmp_path / 'out')!r})\n"
        f"tokens = torch.tensor({TOKENS.tolist()})\n"
        f"found = model.generate(tokens, max_new_tokens=12, do_sample=False, use_cache={cache},\n"
        "    eos_token_id=None, pad_token_id=0)\n"
        "assert 'evomerge' not in sys.modules\n"
        "print(found.tolist())\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    live = built(stack)
    written = live.generate(
        TOKENS, max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    assert ran.stdout.strip() == str(written.tolist())


@pytest.mark.filterwarnings("ignore")  # PEFT's
def test_a_member_may_be_the_base_with_an_adapter(llama_family, tmp_path):
    base = llama_family.base
    model = peft.get_peft_model(
        loaded(base),
        peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["o_proj", "v_proj"]),
    )
    with torch.no_grad():
        for parameter in filter(lambda one: one.requires_grad, model.parameters()):
            parameter.add_(0.1 * torch.randn(parameter.shape))
    model.save_pretrained(tmp_path / "lora")
    model.merge_and_unload().save_pretrained(tmp_path / "merged")
    stacks = [
        Stack(
            base,
            {"one": parent(name), "base": parent(base)},
            (PathStep("one", 0), PathStep("base", 2)),
        )
        for name in (f"{base}+{tmp_path / 'lora'}", str(tmp_path / "merged"))
    ]
    save_stack(stacks[0], tmp_path / "out")
    found = logits(built(stacks[0]))
    assert torch.equal(found, logits(loaded(tmp_path / "out")))
    assert torch.allclose(found, logits(built(stacks[1])), atol=1e-5)


def test_layers_that_are_the_same_share_their_memory(llama_family):
    module = built(stack_of(llama_family, ("one", 0), ("one", 1), ("one", 1), ("one", 2)))
    places = [layer.mlp.up_proj.weight.data_ptr() for layer in module.model.layers]
    assert len(set(places)) == 3
    assert places[1] == places[2]
    assert [layer.self_attn.layer_idx for layer in module.model.layers] == [0, 1, 2, 3]


TINY = {
    "vocab_size": 259,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-9,  # folding is exact up to it
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "dtype": "float32",
}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
OWN = {
    "llama": {"attention_bias": True, "mlp_bias": True},
    "qwen2_moe": {**MOE, "shared_expert_intermediate_size": 24},
    "qwen3_moe": MOE,
    "granite": {"residual_multiplier": 0.7, "embedding_multiplier": 3.0},
}


@pytest.mark.parametrize("kind", sorted(SCALABLE))
def test_scales_are_folded_into_the_weights(kind, build_family, tmp_path):
    config = transformers.AutoConfig.for_model(kind, **TINY, **OWN.get(kind, {}))
    model_class = type(transformers.AutoModelForCausalLM.from_config(config))
    family = build_family(tmp_path, model_class, config, experts=2)
    steps = (("one", 0), ("two", 1, 0.6), ("two", 2), ("one", 0, 1.7), ("two", 2, 0.9))
    scaled = stack_of(family, *steps)
    plain = stack_of(family, *(step[:2] for step in steps))
    module = built(plain)
    with scaled_inputs(module, [step.scale for step in scaled.path]):
        expected = logits(module)
    found = logits(built(scaled))
    spread = expected.abs().max()
    assert (found - expected).abs().max() < 1e-5 * spread
    assert (logits(module) - expected).abs().max() > 1e-2 * spread


@pytest.mark.parametrize("kind", ["gemma2", "olmo2"])
def test_scales_that_cannot_be_folded_are_refused_by_name(kind, build_family, tmp_path):
    config = transformers.AutoConfig.for_model(kind, **TINY)
    model_class = type(transformers.AutoModelForCausalLM.from_config(config))
    family = build_family(tmp_path, model_class, config, experts=2)
    assert scale_fault(kind) is not None
    for act in (built, lambda stack: save_stack(stack, tmp_path / "out")):
        with pytest.raises(RecipeError, match=f"cannot be folded into the weights of a {kind}"):
            act(stack_of(family, ("one", 0), ("two", 1, 0.5)))
    plain = stack_of(family, ("one", 0), ("two", 1), ("two", 1), ("one", 2))
    save_stack(plain, tmp_path / "out")
    assert torch.equal(logits(built(plain)), logits(loaded(tmp_path / "out")))


def test_a_path_of_no_layers_is_refused(llama_family, tmp_path):
    empty = Stack(llama_family.base, {}, ())
    live = StackBuilder(LiveModel([llama_family.base], dtype="float32"))
    with pytest.raises(RecipeError, match="the path has no layers"):
        live.build(empty)
    with pytest.raises(RecipeError, match="the path has no layers"):
        save_stack(empty, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_layer_that_does_not_exist_is_refused(llama_family):
    with pytest.raises(RecipeError, match=r"found \[3, 5\], .* has 4 layers"):
        built(stack_of(llama_family, ("one", 3), ("one", 4)))


def test_layers_that_a_class_tells_by_their_numbers_are_refused(build_family, tmp_path):
    """Of Qwen3-MoE's layers every second one may be dense: by its number, whatever the weights say."""
    own = {**MOE, "decoder_sparse_step": 2}
    config = transformers.AutoConfig.for_model("qwen3_moe", **TINY, **own)
    family = build_family(tmp_path, transformers.Qwen3MoeForCausalLM, config, experts=2)
    with pytest.raises(MergeError, match="does not take the merged tensors"):
        built(stack_of(family, ("one", 0), ("one", 0), ("one", 1)))


def test_layers_of_unlike_attention_keep_it(build_family, tmp_path):
    config = transformers.AutoConfig.for_model(
        "qwen2",
        **TINY,
        sliding_window=3,
        use_sliding_window=True,
        layer_types=["full_attention", "sliding_attention", "full_attention"],
    )
    family = build_family(tmp_path, transformers.Qwen2ForCausalLM, config, experts=2)
    stack = stack_of(family, ("one", 1), ("two", 0), ("one", 1), ("two", 2))
    module = built(stack)
    kinds = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
    assert module.config.layer_types == kinds
    save_stack(stack, tmp_path / "out")
    assert torch.equal(logits(module), logits(loaded(tmp_path / "out")))


def test_content_tells_models_not_how_they_are_written(llama_family):
    whole = stack_of(llama_family, *(("one", layer) for layer in range(4)))
    swapped = stack_of(llama_family, ("one", 0), ("two", 1), ("one", 2), ("one", 3))
    mixed = stack_of(llama_family, *(("mix", layer) for layer in range(4)))
    known = LiveModel(llama_family.models, dtype="float32").checkpoints
    assert content_of(whole, known) == content(whole.members["one"], known)
    assert content_of(mixed, known) == content(mixed.members["mix"], known)
    again = Stack(swapped.base, dict(reversed(swapped.members.items())), swapped.path)
    assert content_of(swapped, known) == content_of(again, known)
    scaled = Stack(swapped.base, swapped.members, (*swapped.path[:3], PathStep("one", 3, 0.5)))
    found = [content_of(one, known) for one in (whole, mixed, swapped, scaled)]
    found += [content_of(stack_of(llama_family, *HYBRID), known)]
    assert len(set(found)) == 5


def mergekit(file: Path, out: Path) -> dict[str, torch.Tensor]:
    """Let mergekit build a recipe's file: `mergekit-yaml`, of several documents `mergekit-multimerge`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mergekit's own
        from mergekit.config import MergeConfiguration
        from mergekit.merge import run_merge
        from mergekit.options import MergeOptions
        from mergekit.scripts.multimerge import load_config

        options = MergeOptions(device="cpu", quiet=True, random_seed=0, write_threads=1)
        text = file.read_text()
        if len(list(yaml.safe_load_all(text))) == 1:
            run_merge(MergeConfiguration.model_validate(yaml.safe_load(text)), str(out), options)
        else:
            merges, _ = load_config(text, str(out.parent))
            for name in sorted(merges, key=lambda name: name is None):  # the unnamed one last
                folder = out if name is None else out.parent / name
                run_merge(merges[name], str(folder), options)
    return {k: v for part in out.glob("*.safetensors") for k, v in load_file(part).items()}


@pytest.mark.parametrize(
    ("family", "steps"),
    [
        ("llama_family", DEEPER),
        ("llama_family", (("one", 0), ("two", 0, 0.8), ("two", 1), ("one", 1, 1.3))),
        ("qwen2_family", (("one", 1), ("two", 0, 0.8))),  # it cannot make Qwen2 deeper
    ],
    ids=["plain", "scaled", "qwen2"],
)
def test_mergekit_builds_the_same_bytes_from_the_recipe(family, steps, request, tmp_path):
    stack = stack_of(request.getfixturevalue(family), *steps)
    save_stack(stack, tmp_path / "out")
    ours = load_file(tmp_path / "out" / "model.safetensors")
    theirs = mergekit(tmp_path / "out" / "recipe.yaml", tmp_path / "theirs")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_mergekit_builds_a_hybrid_from_the_recipe(llama_family, tmp_path):
    save_stack(stack_of(llama_family, *HYBRID), tmp_path / "out")
    ours = load_file(tmp_path / "out" / "model.safetensors")
    theirs = mergekit(tmp_path / "out" / "recipe.yaml", tmp_path / "theirs")
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert (ours[name] - tensor).abs().max() <= 1e-6 * tensor.abs().max(), name
        if "layers.2." in name:  # of a parent
            assert torch.equal(ours[name], tensor)
