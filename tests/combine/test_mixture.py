from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
)

import evomerge
from evomerge.candidate import MoeRecipe
from evomerge.candidate.gates import Gates
from evomerge.combine.mixture import ResidentMixtures, save_mixture
from evomerge.config import Expert, Models
from evomerge.errors import ModelError, RecipeError
from evomerge.merge.live import LiveModel
from evomerge.preflight.family import open_family, size_of
from tests.combine.mixtures import (
    ARCHITECTURES,
    SHARED,
    alone,
    gates_of,
    mixture_of,
    model_of,
    summed,
    tokens,
)
from tests.conftest import Family
from tests.scoring_family import Subject

Families = Callable[[str], Family]

GATES = (".gate.weight", ".shared_expert_gate.weight")

ALONE = """
import sys
sys.modules["evomerge"] = None  # importing it is an error
import torch
from transformers import AutoModelForCausalLM
torch.set_num_threads(1)
folder, tokens, out = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
with torch.no_grad():
    torch.save(model(torch.load(tokens)).logits, out)
assert "mergekit" not in sys.modules
"""


def live(family: Family, dtype: str = "float32") -> LiveModel:
    return LiveModel(family.models, dtype=dtype, resident_bytes=0)


def logits(module: Any, read: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = module(read).logits
    return found


def loaded(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("top_k", [1, 3])
def test_a_mixture_of_identical_experts_is_the_dense_model(
    architecture: str, top_k: int, families: Families
) -> None:
    family = families(architecture)
    same = summed(family)
    resident = live(family)
    module = ResidentMixtures(resident).write(
        *mixture_of(family, [same] * 3, top_k=top_k, scale=5.0).recipe()
    )
    resident.write(same)
    read = tokens()
    torch.testing.assert_close(
        logits(module, read), logits(resident.module, read), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("architecture", SHARED)
def test_a_shared_expert_takes_its_share_of_the_others(
    architecture: str, families: Families
) -> None:
    family = families(architecture)
    same = summed(family)
    resident = live(family)
    module = ResidentMixtures(resident).write(*mixture_of(family, [same] * 3, share=0.3).recipe())
    assert type(module).__name__ == "Qwen2MoeForCausalLM"
    resident.write(same)
    read = tokens()
    torch.testing.assert_close(
        logits(module, read), logits(resident.module, read), atol=1e-5, rtol=0
    )


def test_identical_experts_score_what_the_dense_model_scores(
    subject: Callable[[str], Subject], tmp_path: Path
) -> None:
    one = subject("llama")
    one.module.save_pretrained(tmp_path / "base")
    one.tokenizer.save_pretrained(tmp_path / "base")
    items = one.items("choice", "written", "said")
    metrics = dict.fromkeys(("choice", "written", "said"))
    path = str(tmp_path / "base")
    family = Family(path, ())
    recipe = replace(
        mixture_of(family, [alone(path)] * 2, shared=alone(path)),
        fit=gates_of(2, one.module.config.num_hidden_layers),
    ).recipe()
    module = ResidentMixtures(live(family)).write(*recipe)
    dense, mixed = (
        one.scorer(items).score(each, "search", metrics) for each in (one.module, module)
    )
    for task, scores in dense.tasks.items():
        for metric, value in scores.values.items():
            found = mixed.tasks[task].values[metric].value
            assert found == pytest.approx(value.value, abs=1e-5), (task, metric)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_all_experts_behind_equal_gates_are_the_mean_of_their_blocks(
    architecture: str, families: Families
) -> None:
    family = families(architecture)
    resident = live(family)
    recipe, merges = mixture_of(family, top_k=3, shared=alone(family.base)).recipe()
    module: Any = ResidentMixtures(resident).write(replace(recipe, gates=None), merges)
    states = torch.randn(2, 5, 32)
    for layer in range(len(module.model.layers)):
        blocks = []
        for expert in family.experts:
            resident.write(alone(expert))
            blocks.append(resident.module.model.layers[layer].mlp(states))
        torch.testing.assert_close(
            module.model.layers[layer].mlp(states),
            torch.stack(blocks).mean(0),
            atol=1e-5,
            rtol=1e-5,
        )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("architecture", "share"),
    [(one, 0.0) for one in ARCHITECTURES] + [(one, 0.4) for one in SHARED],
)
def test_what_is_saved_and_loaded_is_what_was_live(
    architecture: str, share: float, dtype: str, families: Families, tmp_path: Path
) -> None:
    family = families(architecture)
    found = mixture_of(family, share=share)
    recipe, merges = replace(found, shared=replace(found.shared, dtype=dtype)).recipe()
    module = ResidentMixtures(live(family, dtype)).write(recipe, merges)
    save_mixture(recipe, tmp_path / "out", merges=merges, shard_bytes=40_000)
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 1
    again = loaded(tmp_path / "out", getattr(torch, dtype))
    expected = dict(module.state_dict())
    assert again.state_dict().keys() == expected.keys()
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    read = tokens()
    assert torch.equal(logits(again, read), logits(module, read))


@pytest.mark.parametrize(
    ("architecture", "share"), [("llama", 0.0), ("qwen3", 0.0), ("qwen2", 0.3)]
)
def test_a_saved_mixture_loads_where_evomerge_is_not(
    architecture: str, share: float, families: Families, tmp_path: Path
) -> None:
    family = families(architecture)
    recipe, merges = mixture_of(family, share=share).recipe()
    save_mixture(recipe, tmp_path / "out", merges=merges)
    read = tokens()
    torch.save(read, tmp_path / "tokens.pt")
    run = [sys.executable, "-c", ALONE, str(tmp_path / "out"), str(tmp_path / "tokens.pt")]
    subprocess.run([*run, str(tmp_path / "logits.pt")], check=True, cwd=tmp_path)
    module = ResidentMixtures(live(family)).write(recipe, merges)
    assert torch.equal(torch.load(tmp_path / "logits.pt"), logits(module, read))


def test_names_in_the_file_are_those_of_the_hub(families: Families, tmp_path: Path) -> None:
    names = {
        "llama": ("block_sparse_moe.gate.weight", "block_sparse_moe.experts.2.w1.weight"),
        "qwen3": ("mlp.gate.weight", "mlp.experts.2.gate_proj.weight"),
        "qwen2": ("mlp.shared_expert_gate.weight", "mlp.shared_expert.down_proj.weight"),
    }
    for architecture, expected in names.items():
        recipe, merges = mixture_of(families(architecture)).recipe()
        save_mixture(recipe, tmp_path / architecture, merges=merges)
        found = load_file(tmp_path / architecture / "model.safetensors")
        assert {f"model.layers.1.{name}" for name in expected} <= found.keys()
        assert "lm_head.weight" in found


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_its_size_is_that_of_the_file_without_the_gates(
    share: float, families: Families, tmp_path: Path
) -> None:
    family = families("mistral")  # whose heads are tied
    found = mixture_of(family, share=share)
    recipe, merges = found.recipe()
    save_mixture(recipe, tmp_path / "out", merges=merges)
    experts = [Expert(model=model, name=f"e{i}") for i, model in enumerate(family.experts)]
    size = size_of(open_family(Models(base=family.base, experts=experts, dtype="float32")))
    file = load_file(tmp_path / "out" / "model.safetensors")
    counted = sum(tensor.numel() for name, tensor in file.items() if not name.endswith(GATES))
    assert round(found.size(size) * size.total) == counted
    blocks = sum(size.feed_forward)
    assert round(found.active(size) * size.total) == counted - blocks  # one of three is left out


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_the_recipe_beside_it_builds_the_same_bytes(
    share: float, families: Families, tmp_path: Path
) -> None:
    family = families("llama")
    found = mixture_of(family, [summed(family, 0.2), alone(family.experts[0])], share=share)
    recipe, merges = found.recipe()
    save_mixture(recipe, tmp_path / "out", merges=merges, card="")
    evomerge.merge(tmp_path / "out" / "recipe.yaml", tmp_path / "again")
    for file in (tmp_path / "out").iterdir():
        if file.name != "README.md":
            assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name
    assert "A mixture of 2 experts" in (tmp_path / "again" / "README.md").read_text()


def test_without_a_dtype_the_result_has_that_of_a_merged_base(
    families: Families, tmp_path: Path
) -> None:
    family = families("llama")
    found = mixture_of(family, shared=replace(summed(family), dtype="bfloat16"))
    recipe, merges = found.recipe()
    save_mixture(replace(recipe, dtype=None), tmp_path / "out", merges=merges)
    file = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in file.values()} == {torch.bfloat16}


def test_candidates_after_each_other_leave_no_trace(families: Families) -> None:
    family = families("llama")
    resident = ResidentMixtures(live(family))
    one, other = (
        mixture_of(family, top_k=1),
        mixture_of(family, top_k=3, shared=summed(family, 1.0)),
    )
    turned = replace(one, experts=dict(reversed(one.experts.items())))
    read = tokens()
    first = logits(resident.write(*one.recipe()), read)
    module = resident.write(*other.recipe())
    assert not torch.equal(logits(module, read), first)
    assert not torch.equal(logits(resident.write(*turned.recipe()), read), first)
    assert resident.write(*one.recipe()) is module
    assert torch.equal(logits(module, read), first)


def test_what_does_not_change_is_not_written_again(
    families: Families, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = families("llama")
    resident = ResidentMixtures(live(family))
    resident.write(*mixture_of(family).recipe())
    written = []
    from evomerge.combine.assembly import Part

    whole = Part.tensor

    def tensor(part: Part, name: str, *rest: Any) -> torch.Tensor:
        written.append(name)
        return whole(part, name, *rest)

    monkeypatch.setattr(Part, "tensor", tensor)
    resident.write(*mixture_of(family, shared=summed(family, 0.7)).recipe())
    assert written
    assert not any("experts" in name for name in written)


def test_more_experts_a_token_than_there_are_are_refused(families: Families) -> None:
    family = families("llama")
    with pytest.raises(RecipeError, match="experts_per_token: found 4, expected 1 to 3"):
        ResidentMixtures(live(family)).write(*mixture_of(family, top_k=4).recipe())


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        (gates_of(2, 4), r"found \[2, 32\] as a gate of layer 0, expected \[3, 32\]"),
        (gates_of(3, 3), r"found none as a gate of layer 3, expected \[3, 32\]"),
    ],
)
def test_gates_of_another_mixture_are_refused(
    gates: Gates, message: str, families: Families, tmp_path: Path
) -> None:
    recipe, merges = replace(mixture_of(families("llama")), fit=gates).recipe()
    with pytest.raises(RecipeError, match=message):
        save_mixture(recipe, tmp_path / "out", merges=merges)
    assert not (tmp_path / "out").exists()


_GEMMA = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 48, "head_dim": 8}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            (
                Gemma2ForCausalLM,
                Gemma2Config(
                    vocab_size=259, num_attention_heads=4, num_key_value_heads=2, **_GEMMA
                ),
            ),
            "is a gemma2 model, which has no mixture class; expected one of llama, mistral, "
            "qwen2, qwen3",
        ),
        (
            (
                GPTNeoXForCausalLM,
                GPTNeoXConfig(
                    vocab_size=259,
                    num_hidden_layers=2,
                    hidden_size=32,
                    num_attention_heads=4,
                    intermediate_size=48,
                ),
            ),
            "is a gpt_neox model, which has no mixture class",
        ),
        (model_of("llama", attention_bias=True), "its config has attention_bias"),
        (model_of("llama", mlp_bias=True), "its config has mlp_bias"),
        (
            model_of("qwen3", use_sliding_window=True, max_window_layers=1),
            "its config has use_sliding_window",
        ),
    ],
)
def test_models_without_a_mixture_are_refused_in_one_line(
    model: tuple[Any, Any], message: str, build_family: Callable[..., Family], tmp_path: Path
) -> None:
    family = build_family(tmp_path / "family", *model, experts=2)
    recipe, merges = mixture_of(family).recipe()
    with pytest.raises(ModelError, match=message) as found:
        save_mixture(recipe, tmp_path / "out", merges=merges)
    assert "\n" not in str(found.value)
    assert family.base in str(found.value)


def test_a_shared_expert_needs_a_class_that_has_one(families: Families, tmp_path: Path) -> None:
    recipe, merges = mixture_of(families("qwen3"), share=0.2).recipe()
    with pytest.raises(ModelError, match="of which there are no mixtures with a shared expert"):
        save_mixture(recipe, tmp_path / "out", merges=merges)


def test_unlike_architectures_are_refused(families: Families, tmp_path: Path) -> None:
    llama, mistral = families("llama"), families("mistral")
    recipe, merges = mixture_of(llama, [alone(llama.base), alone(mistral.base)]).recipe()
    with pytest.raises(ModelError, match="only models of one architecture can be merged"):
        save_mixture(recipe, tmp_path / "out", merges=merges)


def test_a_mixture_of_an_architecture_that_is_asked_for(families: Families, tmp_path: Path) -> None:
    recipe, merges = mixture_of(families("llama")).recipe()
    asked: MoeRecipe = replace(recipe, architecture="qwen")
    save_mixture(asked, tmp_path / "out", merges=merges)
    module = loaded(tmp_path / "out")
    assert type(module).__name__ == "Qwen2MoeForCausalLM"
    usual = ResidentMixtures(live(families("llama"))).write(recipe, merges)
    read = tokens()
    torch.testing.assert_close(logits(module, read), logits(usual, read), atol=1e-5, rtol=0)
