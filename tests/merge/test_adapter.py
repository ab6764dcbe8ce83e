"""LoRA adapters against PEFT's own merge_and_unload."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from evomerge.candidate import Coefficients, Merge, Recipe, Source
from evomerge.errors import ModelError, RecipeError
from evomerge.merge.checkpoint import open_checkpoint
from evomerge.merge.family import check_family
from evomerge.merge.live import LiveModel
from evomerge.merge.resident import ResidentInputs
from evomerge.merge.saving import save

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning:transformers",
    "ignore::UserWarning:peft",  # PEFT's own
)


def trained(base: str, folder: Path, **options: object) -> dict[str, torch.Tensor]:
    """Save a random adapter, and return what PEFT makes of base and adapter."""
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(task_type="CAUSAL_LM", **options)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    return dict(model.merge_and_unload().state_dict())


@pytest.mark.parametrize(
    "options",
    [
        {"r": 4, "lora_alpha": 16, "target_modules": "all-linear"},
        {"r": 4, "use_rslora": True, "target_modules": ["q_proj", "down_proj"]},
        {
            "r": 4,
            "target_modules": ["q_proj", "v_proj", "up_proj"],
            "rank_pattern": {"v_proj": 2, r"layers\.1\.mlp\.up_proj": 8},
            "alpha_pattern": {"v_proj": 7},
        },
        {"r": 2, "target_modules": ["q_proj"], "modules_to_save": ["lm_head", "norm"]},
        {"r": 2, "target_modules": ["embed_tokens", "q_proj"]},
    ],
    ids=["all-linear", "rslora", "patterns", "modules-to-save", "embeddings"],
)
def test_tensors_equal_peft(options, llama_family, tmp_path):
    expected = trained(llama_family.base, tmp_path / "lora", **options)
    expert = open_checkpoint(f"{llama_family.base}+{tmp_path / 'lora'}")
    base = open_checkpoint(llama_family.base)
    check_family(base, [expert])
    changed = 0
    for name in base.tensors:
        ours = expert.tensor(name)
        assert ours.shape == expert.tensors[name].shape
        assert ours.dtype == expert.tensors[name].dtype
        scale = expected[name].abs().max().item()
        assert (ours - expected[name]).abs().max().item() <= 1e-6 * scale, name
        changed += not torch.equal(ours, base.tensor(name))
    assert changed > 0


def test_transposed_weights_equal_peft(tmp_path):
    config = GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=32)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    expected = trained(
        str(tmp_path / "gpt2"),
        tmp_path / "lora",
        r=3,
        target_modules=["c_attn", "c_proj"],
        fan_in_fan_out=True,
    )
    expert = open_checkpoint(f"{tmp_path / 'gpt2'}+{tmp_path / 'lora'}")
    for name in expert.tensors:
        ours = expert.tensor(name)
        assert torch.allclose(ours, expected[name], rtol=0, atol=1e-6 * ours.abs().max().item())


def test_an_adapter_is_an_expert_of_the_live_model(qwen2_family, tmp_path):
    expected = trained(qwen2_family.base, tmp_path / "lora", r=4, target_modules="all-linear")
    expert = f"{qwen2_family.base}+{tmp_path / 'lora'}"
    for budget in (0, 10**8):
        live = LiveModel((qwen2_family.base, expert), dtype="float32", resident_bytes=budget)
        live.write(
            Recipe(
                method="task_arithmetic",
                models=(Source(expert),),
                base_model=qwen2_family.base,
                parameters={"weight": 1.0},
                dtype="float32",
            )
        )
        for name, tensor in live.module.state_dict().items():
            assert torch.allclose(tensor, expected[name], rtol=0, atol=1e-6), name


def test_weights_by_row_of_adapters_have_gradients_and_are_saved(qwen2_family, tmp_path):
    base = qwen2_family.base
    experts = tuple(f"{base}+{tmp_path / name}" for name in ("one", "two"))
    trained(base, tmp_path / "one", r=4, target_modules="all-linear")
    trained(base, tmp_path / "two", r=2, target_modules=["q_proj", "down_proj"])
    live = LiveModel((base, *experts), dtype="float64")
    names = [name for name, _ in live.module.named_parameters()]
    tables = {
        name: 0.1 * np.random.default_rng(2).normal(size=(2, 32)).astype(np.float32)
        for name in (
            "model.layers.1.self_attn.q_proj.weight",
            "model.layers.0.mlp.down_proj.weight",
        )
    }

    def merge(more):
        own = {"weight": (((0.6, 0.3),),)}
        coefficients = Coefficients(tables | more)
        return Merge(
            "task_arithmetic", experts, base, own=own, dtype="float64", coefficients=coefficients
        )

    def wave():
        return sum((3 * parameter).sin().sum() for parameter in live.module.parameters())

    with live.gradients(merge({}), rows=True) as tape:
        wave().backward()
    found = tape.by_row(merge({}))
    assert set(found) == set(names)
    assert not found["model.embed_tokens.weight"].any()  # no adapter changes it
    assert not found["model.layers.0.mlp.up_proj.weight"][1].any()
    for name, table in tables.items():
        for expert in (0, 1):
            values, weights = [], []
            for step in (2.0**-17, -(2.0**-17)):
                moved = table.copy()
                moved[expert, 9] += step
                weights.append(float(moved[expert, 9]))
                live.write(merge({name: moved}))
                values.append(float(wave()))
            expected = (values[0] - values[1]) / (weights[0] - weights[1])
            assert found[name][expert, 9] == pytest.approx(expected, rel=1e-5)
    save(merge({}), tmp_path / "out")
    live.write(merge({}))
    for name, tensor in load_file(tmp_path / "out" / "model.safetensors").items():
        assert torch.equal(live.module.state_dict()[name], tensor)


@pytest.fixture
def lora(llama_family, tmp_path) -> Path:
    trained(llama_family.base, tmp_path / "lora", r=2, target_modules=["q_proj"])
    return tmp_path / "lora"


def edit(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes), encoding="utf-8")


def rewrite(folder: Path, change) -> None:
    path = folder / "adapter_model.safetensors"
    save_file(change(load_file(path)), path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: edit(f, use_dora=True), "DoRA is not supported; merge the adapter with PEFT"),
        (lambda f: edit(f, peft_type="IA3"), "peft_type is IA3; only LORA"),
        (lambda f: (f / "adapter_config.json").write_text("{"), "not valid JSON"),
        (lambda f: (f / "adapter_config.json").unlink(), r"no adapter_config\.json"),
        (lambda f: (f / "adapter_model.safetensors").unlink(), r"no adapter_model\.safetensors"),
        (
            lambda f: (f / "adapter_model.safetensors").write_bytes(
                (f / "adapter_model.safetensors").read_bytes()[:-9]
            ),
            "truncated",
        ),
        (
            lambda f: rewrite(
                f, lambda t: {k.replace("q_proj", "w_proj"): v for k, v in t.items()}
            ),
            r"adapts model\.layers\.0\.self_attn\.w_proj\.weight, which the model does not have",
        ),
        (
            lambda f: rewrite(
                f, lambda t: {k: v[:, :1].clone() if "lora_A" in k else v for k, v in t.items()}
            ),
            r"adapts .*q_proj\.weight of shape",
        ),
        (
            lambda f: rewrite(
                f, lambda t: {k: v[:1].clone() if "lora_A" in k else v for k, v in t.items()}
            ),
            r"holds factors A \[1, \d+\] and B \[\d+, 2\] of .*q_proj, expected \[rank, in\]",
        ),
        (
            lambda f: rewrite(
                f, lambda t: {k: v.sum() if "lora_A" in k else v for k, v in t.items()}
            ),
            r"holds factors A \[\] and B",
        ),
        (lambda f: (f / "adapter_config.json").write_text("[]"), "expected a mapping of settings"),
        (
            lambda f: rewrite(f, lambda t: {k: v for k, v in t.items() if "lora_A" in k}),
            "only one of the two factors",
        ),
        (
            lambda f: rewrite(
                f, lambda t: t | {"base_model.model.x.lora_magnitude_vector": torch.ones(1)}
            ),
            "does not belong to a plain LoRA",
        ),
    ],
)
def test_errors(spoil, message, lora, llama_family):
    spoil(lora)
    with pytest.raises(ModelError, match=message) as caught:
        open_checkpoint(f"{llama_family.base}+{lora}")
    assert "\n" not in str(caught.value)


SUMS = {
    "linear": {"weight": 0.4},
    "linear of unlike scale": {"weight": 0.4, "normalize": False},
    "task_arithmetic": {"weight": 0.4},
    "task_arithmetic of shares": {"weight": 0.4, "normalize": True},
}


@pytest.mark.parametrize("rows", [False, True], ids=["whole", "rows"])
@pytest.mark.parametrize("name", SUMS)
def test_sums_of_adapters_form_no_task_vectors(name, rows, qwen2_family, tmp_path, monkeypatch):
    """In memory and on disk, with any number of threads, the same bytes: those of full experts merged."""
    method, parameters = name.split()[0], dict(SUMS[name])
    base = qwen2_family.base
    experts = tuple(f"{base}+{tmp_path / one}" for one in ("one", "two"))
    trained(base, tmp_path / "one", r=2, target_modules="all-linear")
    trained(base, tmp_path / "two", r=2, target_modules=["q_proj", "down_proj"])
    weight = parameters.pop("weight")
    table = 0.1 * np.random.default_rng(2).normal(size=(2, 32)).astype(np.float32)
    coefficients = Coefficients({"model.layers.1.self_attn.q_proj.weight": table})
    merge = Merge(
        method,
        experts,
        base if method != "linear" else None,
        own={"weight": (((weight, 0.9),),)},
        fixed=parameters,
        coefficients=coefficients if rows else None,
    )
    full = {}
    for expert in experts:
        opened = open_checkpoint(expert)
        full[expert] = {one: opened.tensor(one).double() for one in opened.tensors}
    live = LiveModel(merge.model_names(), dtype="float32")
    monkeypatch.setattr(ResidentInputs, "delta", None)
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        live.write(merge)
        found.append({key: one.clone() for key, one in live.module.state_dict().items()})
    torch.set_num_threads(1)
    with live.gradients(merge, rows=rows) as tape:
        sum((3 * one).sin().sum() for one in live.module.parameters()).backward()
    assert tape.gradients()
    save(merge, tmp_path / "out")
    plain = open_checkpoint(base)
    for key, saved in load_file(tmp_path / "out" / "model.safetensors").items():
        assert all(torch.equal(one[key], saved) for one in found), key
        common = plain.tensor(key).double()
        weights = [torch.tensor([[one]]).double() for one in (weight, 0.9)]
        if rows and key in coefficients.tables:
            weights = [
                one + torch.tensor(row)[:, None] for one, row in zip(weights, table, strict=True)
            ]
        total = sum(
            w * (full[expert][key] - common) for w, expert in zip(weights, experts, strict=True)
        )
        shares = parameters.get("normalize", method == "linear")
        expected = total / sum(weights) if shares else total
        expected = expected + (sum(weights) if method == "linear" and not shares else 1) * common
        assert (saved - expected).abs().max() <= 1e-6 * expected.abs().max(), key


def test_updates_are_of_the_model_that_they_are_on(qwen2_family, llama_family, tmp_path):
    """An adapter on another model than the base is merged as the full model that it makes."""
    base, other = qwen2_family.base, qwen2_family.experts[0]
    trained(base, tmp_path / "lora", r=2, target_modules=["q_proj"])
    expert = f"{other}+{tmp_path / 'lora'}"
    merge = Merge("task_arithmetic", (expert,), base, own={"weight": (((0.5,),),)})
    save(merge, tmp_path / "out")
    plain, full = open_checkpoint(base), open_checkpoint(expert)
    for key, saved in load_file(tmp_path / "out" / "model.safetensors").items():
        expected = (plain.tensor(key) + full.tensor(key)) / 2
        assert (saved - expected).abs().max() <= 1e-6 * expected.abs().max(), key


@pytest.mark.parametrize("method", ["ties", "dare_ties", "task_arithmetic"])
def test_core_space_is_the_same_in_memory_and_on_disk(method, qwen2_family, tmp_path):
    base = qwen2_family.base
    experts = tuple(f"{base}+{tmp_path / one}" for one in ("one", "two"))
    trained(base, tmp_path / "one", r=4, target_modules="all-linear")
    trained(base, tmp_path / "two", r=2, target_modules=["q_proj"], modules_to_save=["norm"])
    fixed = {"core_space": True} | ({} if method == "task_arithmetic" else {"density": 0.5})
    merge = Merge(
        method,
        experts,
        base,
        own={"weight": (((0.6, 0.9),),)},
        fixed=fixed,
        dtype="float32",
        seed=3,
    )
    save(merge, tmp_path / "out")
    saved = load_file(tmp_path / "out" / "model.safetensors")
    for budget in (0, 10**8):
        live = LiveModel((base, *experts), dtype="float32", resident_bytes=budget)
        for threads in (1, 3):
            torch.set_num_threads(threads)
            live.write(merge)
            torch.set_num_threads(1)
            for key, tensor in saved.items():
                assert torch.equal(live.module.state_dict()[key], tensor), key
    plain = open_checkpoint(base)
    assert not torch.equal(saved["model.norm.weight"], plain.tensor("model.norm.weight"))
    if method == "task_arithmetic":
        save(replace(merge, fixed={}), tmp_path / "without")
        for key, tensor in load_file(tmp_path / "without" / "model.safetensors").items():
            assert (saved[key] - tensor).abs().max() <= 1e-6 * tensor.abs().max(), key
    with live.gradients(merge) as tape:
        sum(one.sum() for one in live.module.parameters()).backward()
    assert len(tape.by_number(merge)["weight"][0][0]) == 2


def test_core_space_of_full_experts_is_refused(qwen2_family, tmp_path):
    base, full = qwen2_family.base, qwen2_family.experts[0]
    trained(base, tmp_path / "lora", r=2, target_modules=["q_proj"])
    for experts, shown in (
        ((full,), f"{full} is none on"),
        ((f"{base}+{tmp_path / 'lora'}", full), f"{full} is none on"),
        ((f"{full}+{tmp_path / 'lora'}",), "is none on"),
    ):
        merge = Merge(
            "ties",
            experts,
            base,
            own={"weight": ((tuple(0.5 for _ in experts),),)},
            fixed={"core_space": True},
        )
        with pytest.raises(
            RecipeError, match="core_space merges LoRA adapters on a base_model"
        ) as it:
            save(merge, tmp_path / "out")
        assert shown in str(it.value)
        assert "\n" not in str(it.value)
    without = Recipe(
        "multislerp",
        (Source(f"{base}+{tmp_path / 'lora'}", None, {"weight": 1.0}),),
        parameters={"core_space": True},
    )
    with pytest.raises(RecipeError, match="is merged without one"):
        save(without, tmp_path / "out")


def test_an_adapter_alone_is_no_model(lora):
    with pytest.raises(ModelError, match="is a LoRA adapter, not a model; name it as MODEL"):
        open_checkpoint(str(lora))


def test_an_adapter_of_another_architecture_is_refused(lora, llama_family, qwen2_family, tmp_path):
    """Also where all of its tensors would fit: its own base says what it is."""
    edit(lora, base_model_name_or_path=qwen2_family.base)
    with pytest.raises(
        ModelError, match=r"lora: was trained on .*, a qwen2 model; .* is a llama model"
    ) as caught:
        open_checkpoint(f"{llama_family.base}+{lora}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("base", ["org/not-here", "/gone", "", None, 3])
def test_an_adapter_whose_base_is_not_here_is_judged_by_its_tensors(base, lora, llama_family):
    edit(lora, base_model_name_or_path=base)
    open_checkpoint(f"{llama_family.base}+{lora}")
