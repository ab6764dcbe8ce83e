"""Moments where the layers before are merged, against RegMean++ (2508.03121) written out in float64."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    MixtralConfig,
    MixtralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

import evomerge
from evomerge.candidate import Merge
from evomerge.errors import MergeError
from evomerge.inference.activations import moments_by_tensor
from evomerge.merge.activations import moments_in_merge
from evomerge.merge.live import LiveModel
from evomerge.merge.statistics import MERGED, write_statistics

RIDGE = 0.01
LAST, EMBEDDING = "model.layers.1.mlp.down_proj.weight", "model.embed_tokens.weight"
MIXTURE = MixtralConfig(
    hidden_size=16,
    intermediate_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    num_local_experts=2,
)
PROJECTED = OPTConfig(
    hidden_size=16, ffn_dim=8, num_hidden_layers=2, num_attention_heads=2, word_embed_proj_dim=8
)
SEQUENCES = torch.randint(3, 250, (3, 24, 6), generator=torch.Generator().manual_seed(1))
PROMPTS = [[*own.tolist(), [7, 9], [11]] for own in SEQUENCES]  # of three lengths


def read_layer(model, number, sequences):
    """Return the moments of what enters the linear layers of one layer in a plain forward of the whole."""
    seen, handles = {}, []
    for name, one in model.model.layers[number].named_modules():
        if isinstance(one, torch.nn.Linear):

            def hook(_, x, name=f"model.layers.{number}.{name}.weight"):
                seen.setdefault(name, []).append(x[0][0])

            handles.append(one.register_forward_pre_hook(hook))
    with torch.no_grad():
        for tokens in sequences:
            model(input_ids=torch.tensor([tokens]))
    for handle in handles:
        handle.remove()
    return {name: (x := torch.cat(rows)).T @ x / len(x) for name, rows in seen.items()}


def plus_plus(folders, prompts, *, merged=True):
    """Return RegMean++'s weights and moments: a whole model for each layer and expert."""
    experts = [
        AutoModelForCausalLM.from_pretrained(one, dtype=torch.float64).eval() for one in folders
    ]
    states = [{n: t.clone() for n, t in one.state_dict().items()} for one in experts]
    done = {n: sum(own[n] for own in states) / len(states) for n in states[0]}
    moments = [{} for _ in folders]
    for number in range(experts[0].config.num_hidden_layers):
        for expert, state, own, tokens in zip(experts, states, moments, prompts, strict=True):
            before = {n: t for n, t in done.items() if "layers" not in n or layer(n) < number}
            expert.load_state_dict(state | before if merged else state)
            own |= read_layer(expert, number, tokens)
        for name in (n for n in moments[0] if layer(n) == number):
            each = [own[name] for own in moments]
            total = sum(each) / len(each)
            ridge = RIDGE * total.trace() / len(total) * torch.eye(len(total), dtype=torch.float64)
            answers = sum(s[name] @ own for s, own in zip(states, each, strict=True)) / len(each)
            done[name] = (answers + done[name] @ ridge) @ torch.linalg.inv(total + ridge)
    return done, moments


def layer(name):
    return int(name.split(".")[2])


def distance(one, other):
    return float((one.double() - other.double()).norm() / other.double().norm())


def regmean(family, experts, file=None, *, dtype="float32", **shared):
    fixed = {"weight": 1.0, **shared}
    return Merge(
        "regmean", experts, family.base, fixed=fixed, dtype=dtype, statistics=file and str(file)
    )


def taken(family, experts, prompts, *, dtype="float32"):
    """Return a live model, and the moments of its experts in their merge."""
    live = LiveModel([family.base, *experts], dtype=dtype)
    alone = [Merge("passthrough", (one,), dtype=dtype) for one in experts]
    return live, moments_in_merge(live, regmean(family, experts, dtype=dtype), alone, prompts)


@pytest.fixture(scope="module")
def gemma_family(tmp_path_factory, build_family):
    """Gemma 3: layers that get masks and positions of two sorts."""
    config = Gemma3TextConfig(
        vocab_size=259,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=3,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        dtype="float32",
    )
    return build_family(tmp_path_factory.mktemp("gemma"), Gemma3ForCausalLM, config)


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma"])
def test_a_merge_by_them_is_the_published_one(name, request, tmp_path):
    family = request.getfixturevalue(f"{name}_family")
    live, found = taken(family, family.experts, PROMPTS, dtype="float64")
    weights, moments = plus_plus(family.experts, PROMPTS)
    for own, expected in zip(found, moments, strict=True):
        assert own.keys() == expected.keys()
        for name, one in own.items():
            assert distance(torch.from_numpy(one), expected[name]) < 1e-6, name
    write_statistics(tmp_path / "s", [({}, {}, own) for own in found])
    shared = {"dtype": "float64", "merged_features": True}
    live.write(regmean(family, family.experts, tmp_path / "s", **shared))
    for name, one in live.module.state_dict().items():
        assert distance(one, weights[name]) < 3e-5, name  # of an inverse of float32
    own, _ = plus_plus(family.experts, PROMPTS, merged=False)  # RegMean
    assert distance(own[LAST], weights[LAST]) > 1e-3


def test_one_expert_reads_as_it_does_alone(llama_family):
    live, (found,) = taken(llama_family, llama_family.experts[:1], PROMPTS[:1])
    live.write(Merge("passthrough", llama_family.experts[:1], dtype="float32"))
    _, own = moments_by_tensor(live.module, PROMPTS[0], full=True)
    assert found.keys() == own.keys()
    for name, one in found.items():
        assert distance(torch.from_numpy(one), own[name]) < 1e-5, name


def test_until_a_layer_is_merged_experts_read_as_they_do_alone(llama_family, tmp_path):
    """Of the same embeddings and prompts: the first layer's moments are RegMean's, the others' are not."""
    experts = []
    for number, folder in enumerate(llama_family.experts[:2]):
        model = AutoModelForCausalLM.from_pretrained(folder)
        base = load_file(f"{llama_family.base}/model.safetensors")
        model.load_state_dict({"model.embed_tokens.weight": base[EMBEDDING]}, strict=False)
        experts.append(str(tmp_path / str(number)))
        model.save_pretrained(experts[-1])
    live, found = taken(llama_family, experts, PROMPTS[:1] * 2)
    for expert, merged in zip(experts, found, strict=True):
        live.write(Merge("passthrough", (expert,), dtype="float32"))
        _, own = moments_by_tensor(live.module, PROMPTS[0], full=True)
        for name, one in merged.items():
            assert (distance(torch.from_numpy(one), own[name]) < 1e-5) == (layer(name) == 0), name


def test_the_next_merge_is_whole_and_nothing_is_left(llama_family, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    live, _ = taken(llama_family, llama_family.experts, PROMPTS)
    assert not list(tmp_path.iterdir())
    assert all(one._statistics is None for one in live.memories[live.device].inputs.values())
    assert not list(live.tensors_held())
    fresh = LiveModel(llama_family.models, dtype="float32")
    merge = Merge("linear", llama_family.experts, fixed={"weight": 1.0}, dtype="float32")
    for each in (live, fresh):
        each.write(merge)
    for name, one in live.module.state_dict().items():
        assert torch.equal(one, fresh.module.state_dict()[name])


@pytest.mark.parametrize(
    ("kind", "config", "message"),
    [
        (GPT2LMHeadModel, GPT2Config(n_embd=8, n_layer=2, n_head=2), "one without linear layers"),
        (MixtralForCausalLM, MIXTURE, "not written one by one"),
        (OPTForCausalLM, PROJECTED, "project_out is outside them"),
    ],
)
def test_models_that_are_not_read_layer_by_layer_are_refused(
    kind, config, message, build_family, tmp_path
):
    config.vocab_size = 259
    family = build_family(tmp_path, kind, config, experts=1)
    with pytest.raises(MergeError, match=message):
        taken(family, family.experts, PROMPTS[:1])


def test_statistics_of_prompts_of_ones_own(llama_family, tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "abc"}\n{"prompt": "de"}\n')
    prompts, experts = tmp_path / "p.jsonl", llama_family.experts[:2]
    evomerge.statistics(experts, prompts, tmp_path / "s", base=llama_family.base)
    evomerge.statistics(experts, prompts, tmp_path / "plain")
    tokenizer = AutoTokenizer.from_pretrained(llama_family.base)
    tokens = [tokenizer(text)["input_ids"] for text in ("abc", "de")]
    _, found = taken(llama_family, experts, [tokens, tokens])
    written, plain = load_file(tmp_path / "s"), load_file(tmp_path / "plain")
    for place, own in enumerate(found):
        plain |= {f"{MERGED}{place}/{n}": torch.from_numpy(one) for n, one in own.items()}
    assert written.keys() == plain.keys()
    assert all(torch.equal(one, plain[name]) for name, one in written.items())
