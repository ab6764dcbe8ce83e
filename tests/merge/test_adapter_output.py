"""A merge or a model as one adapter: PEFT loads it, and computes what the model does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from evomerge.candidate import Coefficients, Merge, Recipe, Slice, Source, Vocabulary, load
from evomerge.combine.folder import is_plain
from evomerge.errors import MergeError, RecipeError, ResultsError, UserError
from evomerge.merge.adapter_output import linear_modules, save_adapter, truncated, write_adapter
from evomerge.merge.checkpoint import open_checkpoint
from evomerge.merge.methods.low_rank import Factors
from evomerge.merge.saving import save
from tests.conftest import Family
from tests.merge.test_adapter import trained

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning:transformers", "ignore::UserWarning:peft"
)
FULL = 48
"""The largest rank that a layer of the family has."""


@pytest.fixture
def linear_expert(llama_family: Family, tmp_path: Path) -> Path:
    """An expert whose embeddings, norms and head are the base's."""
    model = AutoModelForCausalLM.from_pretrained(llama_family.experts[0])
    base = AutoModelForCausalLM.from_pretrained(llama_family.base).state_dict()
    linear = linear_modules(model.config)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.removesuffix(".weight") not in linear:
                tensor.copy_(base[name])
    model.save_pretrained(tmp_path / "expert")
    return tmp_path / "expert"


def test_at_full_rank_an_adapter_is_the_model(
    llama_family: Family, linear_expert: Path, tmp_path: Path
) -> None:
    base, expert = map(open_checkpoint, (llama_family.base, str(linear_expert)))
    made = write_adapter(base, expert, tmp_path / "adapter", rank=FULL)
    assert made.kept == pytest.approx(1.0, abs=1e-9)
    assert made.left == ()
    assert is_plain(tmp_path / "adapter")
    adapted = open_checkpoint(f"{llama_family.base}+{tmp_path / 'adapter'}")
    for name in base.tensors:
        torch.testing.assert_close(adapted.tensor(name), expert.tensor(name), rtol=0, atol=1e-5)
    loaded = AutoModelForCausalLM.from_pretrained(llama_family.base)
    peft = PeftModel.from_pretrained(loaded, tmp_path / "adapter")
    tokens = torch.tensor([[5, 9, 11, 3]])
    own = AutoModelForCausalLM.from_pretrained(linear_expert)
    torch.testing.assert_close(peft(tokens).logits, own(tokens).logits, rtol=0, atol=1e-5)


def test_what_an_adapter_cannot_hold_is_named(llama_family: Family, tmp_path: Path) -> None:
    base, expert = map(open_checkpoint, (llama_family.base, llama_family.experts[0]))
    made = write_adapter(base, expert, tmp_path / "adapter", rank=4)
    assert {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"} < {*made.left}
    assert len(made.left) == 3 + 2 * 4
    adapted = open_checkpoint(f"{llama_family.base}+{tmp_path / 'adapter'}")
    whole = near = 0.0
    for name in base.tensors:
        wanted, found = expert.tensor(name), adapted.tensor(name)
        whole += float((wanted - base.tensor(name)).square().sum())
        near += float((wanted - found).square().sum())
        if name in made.left:
            assert torch.equal(found, base.tensor(name))
        else:
            assert np.linalg.matrix_rank(found - base.tensor(name), tol=1e-4) == 4
    assert made.kept == pytest.approx(1 - near / whole, abs=1e-4)
    assert 0.1 < made.kept < 0.9


def test_no_other_product_of_the_rank_is_nearer() -> None:
    delta = torch.randn(6, 4, dtype=torch.float64)
    values = torch.linalg.svdvals(delta)
    for rank in (1, 3):
        found, whole, kept = truncated(delta, rank)
        assert (found.left.shape, found.right.shape) == ((6, rank), (rank, 4))
        lost = float((delta - found.left @ found.right).square().sum())
        assert lost == pytest.approx(float(values[rank:].square().sum()))
        assert whole == pytest.approx(float(values.square().sum()))
        assert whole - kept == pytest.approx(lost)


@pytest.mark.parametrize("rank", [1, 2, 4, 6, 9])
def test_factors_are_truncated_as_their_product_is(rank: int) -> None:
    factors = Factors(torch.randn(8, 6), torch.randn(6, 11), 0.5)
    delta = 0.5 * factors.left.double() @ factors.right.double()
    found, whole, kept = truncated(factors, rank)
    expected, all_of_it, part = truncated(delta, rank)
    product = found.left.double() @ found.right.double()
    torch.testing.assert_close(product, expected.left @ expected.right, rtol=1e-9, atol=1e-9)
    assert (whole, kept) == pytest.approx((all_of_it, part), rel=1e-9)
    assert found.rank == min(rank, 6)


def test_layers_of_a_smaller_rank_are_filled_up(llama_family: Family, tmp_path: Path) -> None:
    """Keys and values have half as many rows as the rank."""
    base, expert = map(open_checkpoint, (llama_family.base, llama_family.experts[0]))
    made = write_adapter(base, expert, tmp_path / "adapter", rank=30)
    assert made.rank == 30
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {tensor.shape[0] for key, tensor in stored.items() if "lora_A" in key} == {30}
    assert {tensor.shape[1] for key, tensor in stored.items() if "lora_B" in key} == {30}
    (key,) = (key for key in stored if "layers.0" in key and "k_proj.lora_A" in key)
    assert stored[key][:16].any(1).all()
    assert not stored[key][16:].any()


def test_layers_that_are_the_bases_are_left_out(
    llama_family: Family, linear_expert: Path, tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(llama_family.base)
    trained = AutoModelForCausalLM.from_pretrained(linear_expert).state_dict()
    with torch.no_grad():
        name = "model.layers.1.self_attn.q_proj.weight"
        model.get_parameter(name).copy_(trained[name])
    model.save_pretrained(tmp_path / "one")
    base = open_checkpoint(llama_family.base)
    write_adapter(base, open_checkpoint(str(tmp_path / "one")), tmp_path / "adapter", rank=2)
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {key.split(".self_attn.")[1] for key in stored} == {
        *("q_proj.lora_A.weight", "q_proj.lora_B.weight")
    }
    moved = {key for key, tensor in stored.items() if tensor.any()}
    assert moved == {key for key in stored if ".layers.1." in key}


def test_a_model_that_needs_no_adapter_is_refused(llama_family: Family, tmp_path: Path) -> None:
    base = open_checkpoint(llama_family.base)
    with pytest.raises(MergeError, match="no adapter is needed"):
        write_adapter(base, base, tmp_path / "adapter", rank=4)
    assert not (tmp_path / "adapter").exists()


OPTIONS: dict[str, dict[str, Any]] = {
    "one": {"r": 4, "lora_alpha": 16, "target_modules": "all-linear"},
    "two": {"r": 2, "target_modules": ["q_proj", "down_proj"]},
    "three": {"r": 3, "use_rslora": True, "target_modules": ["q_proj", "v_proj", "up_proj"]},
}
FACTORS = 4 + 2 + 3
PARAMETERS = {
    "linear": {"weight": 0.5},
    "task_arithmetic": {"weight": 0.7, "lambda": 1.2},
    "dare_linear": {"weight": 0.7, "density": 1.0},
    "ties": {"weight": 0.7, "density": 0.5},
}
LINEAR = [name for name in PARAMETERS if name != "ties"]
TOKENS = torch.tensor([[5, 9, 11, 3]])


@pytest.fixture
def experts(llama_family: Family, tmp_path: Path) -> tuple[str, ...]:
    """Adapters of unlike ranks, scales and layers."""
    for name, options in OPTIONS.items():
        trained(llama_family.base, tmp_path / name, **options)
    return tuple(f"{llama_family.base}+{tmp_path / name}" for name in OPTIONS)


def recipe(method: str, experts: tuple[str, ...], base: str | None, **shared: Any) -> Recipe:
    own = {key: value for key, value in PARAMETERS[method].items() if key != "lambda"}
    shared |= {key: value for key, value in PARAMETERS[method].items() if key == "lambda"}
    weights = (1.0, 0.5, -0.8)
    models = (
        Source(model, None, {**own, "weight": own["weight"] * factor})
        for model, factor in zip(experts, weights, strict=False)
    )
    return Recipe(method, tuple(models), base_model=base, parameters=shared)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(TOKENS).logits
    return found


def adapted(base: str, folder: Path) -> torch.Tensor:
    return logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("method", LINEAR)
def test_a_sum_of_adapters_is_an_adapter(
    method: str, normalize: bool, llama_family: Family, experts: tuple[str, ...], tmp_path: Path
) -> None:
    """At the sum of the ranks nothing is lost; linear's weights are shares of the whole."""
    base = None if method == "linear" else llama_family.base
    chosen = recipe(method, experts, base, normalize=normalize or method == "linear")
    made = save_adapter(chosen, tmp_path / "adapter", rank=FACTORS)
    assert (made.rank, made.kept, made.worst[1], made.left) == (FACTORS, 1.0, 1.0, ())
    assert is_plain(tmp_path / "adapter")
    save(chosen, tmp_path / "model")
    expected = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "model"))
    found = adapted(llama_family.base, tmp_path / "adapter")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert not torch.allclose(
        found, logits(AutoModelForCausalLM.from_pretrained(llama_family.base))
    )
    again = save_adapter(chosen, tmp_path / "more", rank=10 * FACTORS)
    assert again.rank == FACTORS
    assert load(tmp_path / "adapter" / "recipe.yaml").method == method


def test_its_files_say_what_it_is_for(
    llama_family: Family, experts: tuple[str, ...], tmp_path: Path
) -> None:
    chosen = recipe("task_arithmetic", experts, llama_family.base)
    save_adapter(chosen, tmp_path / "adapter", rank=64, dtype="bfloat16")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(Path(llama_family.base).resolve())
    assert config["r"] == config["lora_alpha"] == FACTORS
    assert not config["rank_pattern"]
    assert not config["alpha_pattern"]
    layers = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert config["target_modules"] == sorted(layers)
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {
        *("adapter_config.json", "adapter_model.safetensors", "recipe.yaml", "README.md")
    }
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert "library_name: peft" in card
    assert f"rank {FACTORS}; lost" in card


@pytest.mark.parametrize("method", ["task_arithmetic", "ties"])
def test_a_smaller_rank_loses_what_it_says(
    method: str, llama_family: Family, experts: tuple[str, ...], tmp_path: Path
) -> None:
    chosen = recipe(method, experts, llama_family.base)
    made = save_adapter(chosen, tmp_path / "adapter", rank=3)
    save(chosen, tmp_path / "model")
    base, model = open_checkpoint(llama_family.base), open_checkpoint(str(tmp_path / "model"))
    near = open_checkpoint(f"{llama_family.base}+{tmp_path / 'adapter'}")
    whole = lost = 0.0
    worst = 1.0
    for name in base.tensors:
        delta = model.tensor(name) - base.tensor(name)
        away = float((model.tensor(name) - near.tensor(name)).square().sum())
        whole, lost = whole + float(delta.square().sum()), lost + away
        if delta.any():
            share = 1 - away / float(delta.square().sum())
            assert share >= made.worst[1] - 1e-4
            worst = min(worst, share)
    assert made.rank == 3
    assert made.kept == pytest.approx(1 - lost / whole, abs=1e-4)
    assert made.worst[1] == pytest.approx(worst, abs=1e-4)
    assert 0.2 < made.kept < 0.99
    assert f"{1 - made.kept:.2g}" in made.text()


def test_full_experts_and_what_an_adapter_cannot_hold(llama_family: Family, tmp_path: Path) -> None:
    chosen = recipe("ties", llama_family.experts, llama_family.base)
    made = save_adapter(chosen, tmp_path / "adapter", rank=FULL)
    assert {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"} < {*made.left}
    assert made.worst[1] == pytest.approx(1, abs=1e-6)
    assert made.kept < 0.99  # of the embeddings nothing
    assert "an adapter cannot hold" in made.text()
    assert f"and {len(made.left) - 3} more" in made.text()
    save(chosen, tmp_path / "model")
    near = open_checkpoint(f"{llama_family.base}+{tmp_path / 'adapter'}")
    model = open_checkpoint(str(tmp_path / "model"))
    for name in model.tensors:
        if name not in made.left:
            torch.testing.assert_close(near.tensor(name), model.tensor(name), rtol=0, atol=1e-5)


def test_weights_by_row_and_core_space(
    llama_family: Family, experts: tuple[str, ...], tmp_path: Path
) -> None:
    table = np.random.default_rng(2).normal(size=(3, 32)).astype(np.float32)
    by_row = Merge(
        "task_arithmetic",
        experts,
        llama_family.base,
        own={"weight": (((0.6, 0.3, 0.2),),)},
        coefficients=Coefficients({"model.layers.1.self_attn.q_proj.weight": 0.1 * table}),
    )
    core = recipe("ties", experts, llama_family.base, core_space=True)
    for number, chosen in enumerate((by_row, core)):
        made = save_adapter(chosen, tmp_path / f"adapter{number}", rank=FACTORS)
        assert made.kept == pytest.approx(1, abs=1e-6)
        save(chosen, tmp_path / f"model{number}")
        expected = logits(AutoModelForCausalLM.from_pretrained(tmp_path / f"model{number}"))
        found = adapted(llama_family.base, tmp_path / f"adapter{number}")
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_merge_that_moves_the_base_itself_is_no_sum(
    llama_family: Family, experts: tuple[str, ...], tmp_path: Path
) -> None:
    """Weights that do not sum to 1 shrink every tensor."""
    chosen = recipe("linear", experts, None, normalize=False)
    made = save_adapter(chosen, tmp_path / "adapter", rank=FACTORS)
    assert made.kept < 0.9
    assert "model.embed_tokens.weight" in made.left


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"base_model": None, "method": "linear"}, RecipeError, "base_model: names no base that"),
        ({"base_model": "adapted"}, RecipeError, "expected a model without one"),
        ({"slices": (0, 2)}, RecipeError, "makes another number of layers than"),
        ({"vocabulary": Vocabulary("union", pad_to_multiple_of=64)}, RecipeError, "tokenizer: .*"),
        ({"rank": 0}, UserError, "as_lora: found a rank of 0, expected at least 1"),
        ({"out": "taken"}, ResultsError, "exists already"),
        ({"weight": 0.0}, MergeError, "no adapter is needed"),
    ],
    ids=["no base", "base with an adapter", "layers", "vocabulary", "rank", "out", "nothing"],
)
def test_refusals(
    change: dict[str, Any],
    error: type[Exception],
    message: str,
    llama_family: Family,
    experts: tuple[str, ...],
    tmp_path: Path,
) -> None:
    base = llama_family.base
    (tmp_path / "taken").mkdir()
    change = {"rank": 2, "out": "adapter", "base_model": base, "weight": 0.5, **change}
    named = experts[1] if change["base_model"] == "adapted" else change["base_model"]
    models: tuple[Source, ...] = (Source(experts[0], None, {"weight": change["weight"]}),)
    if named is None:
        models = (*models, Source(llama_family.experts[0], None, {"weight": 0.5}))
    slices: tuple[Slice, ...] = ()
    if "slices" in change:
        sources = (Source(experts[0], (0, 2), {"weight": 0.5}), Source(base, (0, 2)))
        models, slices = (), (Slice(sources),)
    chosen = Recipe(
        change.get("method", "task_arithmetic"),
        models,
        slices,
        base_model=named,
        vocabulary=change.get("vocabulary"),
    )
    with pytest.raises(error, match=message) as caught:
        save_adapter(chosen, tmp_path / change["out"], rank=change["rank"])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "adapter").exists()
