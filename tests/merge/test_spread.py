"""Models over several devices: which part lies where, and the same weights and gradients as on one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    MixtralConfig,
    MixtralForCausalLM,
)

from evomerge.candidate import Merge, PathStep, Stack, Vocabulary
from evomerge.combine.stack import StackBuilder
from evomerge.merge.live import LiveModel
from evomerge.merge.memory import Memory
from evomerge.merge.methods import METHODS
from evomerge.merge.names import model_names
from evomerge.merge.spread import ModelPart, device_of, spread
from tests.pseudo_devices import DEVICE, pseudo_devices
from tests.published_models import LLAMA_2_7B, LLAMA_3_2_1B, LLAMA_3_70B


def parts(config: LlamaConfig) -> tuple[ModelPart, ...]:
    names = model_names(config, trust_remote_code=False)
    assert names is not None
    return names.parts


@pytest.mark.parametrize(
    ("config", "count", "numbers"),
    [
        (LLAMA_2_7B, 2, 6_738_415_616),
        (LLAMA_3_70B, 8, 70_553_706_496),
        (LLAMA_3_2_1B, 4, 1_235_814_400),
    ],
    ids=["7B", "70B", "1B"],
)
def test_parts_are_placed_once_in_runs_of_equal_bytes(
    config: LlamaConfig, count: int, numbers: int
) -> None:
    whole = parts(config)
    assert sum(part.numbers for part in whole) == numbers
    places = spread(whole, count)
    layers = config.num_hidden_layers
    assert [name for name in places if ".layers." in name] == [
        f"model.layers.{layer}" for layer in range(layers)
    ]
    run = [places[part.name] for part in whole if part.numbers]
    assert run == sorted(run)
    shares = [0] * count
    for part in whole:
        shares[places[part.name]] += part.numbers
    assert min(shares) > 0
    assert max(shares) <= numbers / count + max(part.numbers for part in whole)
    tied = config.tie_word_embeddings
    assert places["lm_head"] == (0 if tied else count - 1)
    assert device_of(f"model.layers.{layers - 1}.mlp.up_proj.weight", places) == count - 1
    assert device_of("model.layers.1.mlp.up_proj.weight", {"model.layers.1": 2}) == 2
    assert device_of("something.else", places) == 0


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with pseudo_devices(monkeypatch):
        yield


def merge_of(models: tuple[str, ...], method: str) -> Merge:
    takes = METHODS[method]
    base, *experts = models
    inputs = (experts if takes.uses_base else models)[: takes.max_models]
    weights = tuple(0.1 + 0.25 * place for place in range(len(inputs)))
    fixed = {"density": 0.4, "t": 0.01}
    return Merge(
        method,
        tuple(inputs),
        base if takes.uses_base else None,
        own={"weight": ((weights,),)} if "weight" in takes.parameters else {},
        fixed={name: value for name, value in fixed.items() if name in takes.parameters},
        seed=3,
    )


def where(live: LiveModel) -> dict[str, int]:
    return {name: each.device.index for name, each in live.module.state_dict().items()}


@pytest.mark.parametrize("budget", [0, 10**8], ids=["streamed", "resident"])
def test_a_live_merge_over_several_devices_is_that_on_one(
    budget: int, llama_family: Any, devices: None
) -> None:
    one = LiveModel(llama_family.models, dtype="bfloat16", device="cpu")
    live = LiveModel(
        llama_family.models, dtype="bfloat16", device=DEVICE, devices=3, resident_bytes=budget
    )
    places = where(live)
    assert set(places.values()) == {0, 1, 2}
    for method in ("linear", "ties", "dare_ties", "della", "slerp", "sce", "model_stock", "tsv"):
        recipe = merge_of(llama_family.models, method)
        live.write(recipe)
        one.write(recipe)
        expected = one.module.state_dict()
        for name, tensor in live.module.state_dict().items():
            assert torch.equal(tensor.cpu(), expected[name]), (method, name)
    assert where(live) == places


def test_a_single_device_needs_no_number(llama_family: Any, devices: None) -> None:
    one = LiveModel(llama_family.models, dtype="float32", device="cpu")
    live = LiveModel(llama_family.models, dtype="float32", device=DEVICE)
    assert set(where(live).values()) == {0}
    recipe = merge_of(llama_family.models, "task_arithmetic")
    for each in (one, live):
        each.write(recipe)
    expected = one.module.state_dict()
    for name, tensor in live.module.state_dict().items():
        assert torch.equal(tensor.cpu(), expected[name]), name


def test_gradients_over_several_devices_are_those_on_one(llama_family: Any, devices: None) -> None:
    recipe = merge_of(llama_family.models, "ties")
    tokens = torch.arange(5, 25)[None]
    found = []
    for device, count in (("cpu", 1), (DEVICE, 2)):
        live = LiveModel(llama_family.models, dtype="float32", device=device, devices=count)
        for recompute in (False, True):
            with live.gradients(recipe, recompute=recompute, rows=True) as tape:
                logits = live.module(tokens.to(live.device)).logits
                assert logits.device == live.device
                logits.float().log_softmax(-1)[0, :, 7].sum().backward()
            found.append((tape.by_number(recipe)["weight"], tape.by_row(recipe)))
    (numbers, rows), *others = found
    for other, other_rows in others:
        assert np.allclose(other, numbers, rtol=1e-6)
        assert other_rows.keys() == rows.keys() != set()
        assert all(np.allclose(other_rows[name], rows[name], rtol=1e-5) for name in rows)


def test_what_is_kept_counts_on_the_device_where_it_is(llama_family: Any, devices: None) -> None:
    live = LiveModel(llama_family.models, dtype="float32", device=DEVICE, devices=2)
    small, large = Memory(3000), Memory(10**8)
    live.keep([small, large])
    for seed in (0, 1):
        live.write(merge_of(llama_family.models, "task_arithmetic"))
        assert 0 < small.used <= 3000 < large.used, seed
    assert large.used < 4 * 4 * sum(each.numel() for each in live.module.parameters())


def test_a_stack_over_several_devices_is_that_on_one(llama_family: Any, devices: None) -> None:
    base, one, two = llama_family.models[:3]
    members = {"one": Merge("passthrough", (one,)), "mix": merge_of((base, one, two), "linear")}
    steps = ("one", 0), ("mix", 1), ("mix", 2), ("one", 2), ("mix", 3)
    stack = Stack(base, members, tuple(PathStep(*step) for step in steps))
    tokens = torch.arange(5, 25)[None]
    logits = []
    for device, count in (("cpu", 1), (DEVICE, 2)):
        live = LiveModel(stack.model_names(), dtype="float32", device=device, devices=count)
        module = StackBuilder(live).build(stack)
        with torch.no_grad():
            logits.append(module(tokens.to(live.device)).logits.cpu())
    assert {each.device.index for each in module.parameters()} == {0, 1}
    assert torch.equal(*logits)


def mixtral(_: Any, folder: Path, build: Any) -> tuple[str, ...]:  # experts fused at loading
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 3}
    config = MixtralConfig(vocab_size=262, pad_token_id=0, dtype="float32", **sizes, **heads)
    models: tuple[str, ...] = build(folder, MixtralForCausalLM, config).models
    return models


def one_untied(qwen2: Any, folder: Path, _: Any) -> tuple[str, ...]:
    module = AutoModelForCausalLM.from_pretrained(qwen2.base)
    module.config.tie_word_embeddings = False
    module.lm_head.weight = torch.nn.Parameter(module.lm_head.weight.detach() + 1)
    module.save_pretrained(folder)
    return qwen2.base, str(folder)


def one_longer(qwen2: Any, folder: Path, _: Any) -> tuple[str, ...]:
    tokens = AutoTokenizer.from_pretrained(qwen2.experts[1])
    tokens.add_special_tokens({"additional_special_tokens": ["<new>"]})
    module = AutoModelForCausalLM.from_pretrained(qwen2.experts[1])
    module.resize_token_embeddings(len(tokens), mean_resizing=False)
    for one in (module, tokens):
        one.save_pretrained(folder)
    return qwen2.base, qwen2.experts[0], str(folder)


@pytest.mark.parametrize("models_of", [mixtral, one_untied, one_longer])
def test_heads_vocabularies_and_fused_experts_over_several_devices(
    models_of: Any, qwen2_family: Any, build_family: Any, tmp_path: Path, devices: None
) -> None:
    models = models_of(qwen2_family, tmp_path / "out", build_family)
    vocabulary = Vocabulary("union") if models_of is one_longer else None
    recipe = replace(merge_of(models, "task_arithmetic"), vocabulary=vocabulary)
    tokens = torch.arange(5, 25)[None]
    states, logits = [], []
    for device, count in (("cpu", 1), (DEVICE, 2)):
        live = LiveModel(
            models, dtype="float32", device=device, devices=count, vocabulary=vocabulary
        )
        live.write(recipe)
        states.append({name: each.cpu() for name, each in live.module.state_dict().items()})
        if models_of is not mixtral:  # which does other things on the CPU than elsewhere
            with torch.no_grad():
                logits.append(live.module(tokens.to(live.device)).logits.cpu())
    assert len(set(where(live).values())) == 2
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[1][name], one) for name, one in states[0].items())
    assert not logits or torch.equal(*logits)
