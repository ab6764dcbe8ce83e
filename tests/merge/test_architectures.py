"""Our engine against mergekit 0.1.5 on more architectures: each with every method, in one form in turn.

Llama and Qwen2 are tried in all forms (`test_engine_mergekit`, `test_mergekit_methods`). A mixture's experts
are fused by mergekit, so that it is compared as transformers loads it, with methods that look at one entry at
a time; with the others ours is compared with mergekit's own maths in float64 on the checkpoint's tensors.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPTNeoXConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    Phi3Config,
    PretrainedConfig,
    Qwen3Config,
    Qwen3MoeConfig,
)

from evomerge.candidate import Recipe, Source, loads
from evomerge.merge.checkpoint import open_checkpoint
from evomerge.merge.saving import save
from tests.merge.conftest import merge_now
from tests.merge.test_mergekit_methods import CASES, DENSITY, SHARE, WEIGHT, check_fusion, recipe
from tests.merge.test_vocabulary import RECIPES
from tests.merge.vocabularies import MODELS, assert_equal_by_token, tokenizer

pytestmark = pytest.mark.filterwarnings("ignore")

Build = Callable[[int], PretrainedConfig]
"""Rows of the vocabulary → a tiny model's configuration."""


def small(kind: type[PretrainedConfig], *, tied: bool, **settings: object) -> Build:
    """A configuration of three layers of width 32, with grouped queries where the architecture has them."""
    common = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "dtype": "float32",
    }
    if kind is not GPTNeoXConfig:
        common["num_key_value_heads"] = 2
    return lambda rows: kind(vocab_size=rows, tie_word_embeddings=tied, **common, **settings)


DENSE = {
    "mistral": small(MistralConfig, tied=False),
    "qwen3": small(Qwen3Config, tied=True, head_dim=8),
    "gemma2": small(Gemma2Config, tied=True, head_dim=8),
    "gemma3": small(Gemma3TextConfig, tied=True, head_dim=8),
    "phi3": small(Phi3Config, tied=False),
    "gpt_neox": small(GPTNeoXConfig, tied=False),
    "olmo2": small(Olmo2Config, tied=False),
}
MIXTURES = {
    "mixtral": small(MixtralConfig, tied=False, num_local_experts=2),
    "qwen3_moe": small(
        Qwen3MoeConfig, tied=False, head_dim=8, num_experts=2, moe_intermediate_size=24
    ),
}
ALL = CASES | {
    "linear": ("linear", 3, False, SHARE, {}, {}),
    "linear, summed": ("linear", 2, False, {"weight": (0.1, 0.6)}, {}, {"normalize": False}),
    "task_arithmetic": ("task_arithmetic", 3, True, {"weight": WEIGHT}, {"lambda": (0.3, 1.2)}, {}),
    "task_arithmetic normalised": (
        "task_arithmetic",
        2,
        True,
        {"weight": WEIGHT},
        {},
        {"normalize": True},
    ),
    "ties": ("ties", 3, True, {"weight": WEIGHT, "density": DENSITY}, {"lambda": (0.3, 1.2)}, {}),
    "ties rescaled": (
        "ties",
        2,
        True,
        {"weight": WEIGHT, "density": DENSITY},
        {},
        {"rescale": True, "normalize": False},
    ),
    "slerp": ("slerp", 1, True, {}, {"t": (0.0, 1.0)}, {}),
    "passthrough": ("passthrough", 1, False, {"scale": (0.5, 1.5)}, {}, {}),
}
FORMS = ("filters", "gradients", "slices", "scopes")
COVERED = [
    pytest.param(name, case, form, id=f"{name}-{case}-{form}")
    for row, name in enumerate(DENSE)
    for column, case in enumerate(ALL)
    for form in [FORMS[(row + column) % len(FORMS)]]
]


@pytest.fixture(scope="module")
def family_of(tmp_path_factory, build_family):
    """Name of an architecture → a family of it."""

    @cache
    def build(name: str):
        config = (DENSE | MIXTURES)[name](259)
        with torch.device("meta"):
            kind = type(AutoModelForCausalLM.from_config(config))
        family = build_family(tmp_path_factory.mktemp(name), kind, config)
        if name == "gpt_neox":
            for model in family.models:
                add_buffers(Path(model) / "model.safetensors")
        return family

    return build


def add_buffers(file: Path) -> None:
    """Give a GPT-NeoX what mergekit insists on: buffers that transformers once saved and now ignores."""
    tensors = load_file(file)
    for layer in range(3):
        place = f"gpt_neox.layers.{layer}.attention."
        tensors[f"{place}bias"] = torch.rand(1, 1, 4, 4)
        tensors[f"{place}masked_bias"] = torch.rand(2)
        tensors[f"{place}rotary_emb.inv_freq"] = torch.rand(2)
    save_file(tensors, file, {"format": "pt"})


def parameters(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What `add_buffers` did not add."""
    ends = (".attention.bias", ".attention.masked_bias", ".inv_freq")
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(ends)}


def scoped(family, case: str) -> str:
    """A file in which every scope says something of every parameter, and leaves the rest to the next."""
    method, experts, with_base, own, shared, fixed = ALL[case]
    rng = random.Random(13)

    def said(*spans, of: str, wide: bool = False) -> dict[str, object]:
        found = {name: rng.uniform(*span) for names in spans for name, span in names.items()}
        return found if wide else {k: [{"filter": of, "value": v}] for k, v in found.items()}

    sources = [{"model": family.base, "layer_range": [0, 3]}] if with_base else []
    for model in family.experts[:experts]:
        parameters = said(own, of=".0.")
        sources.append({"model": model, "layer_range": [0, 3], "parameters": parameters})
    piece = {"sources": sources, "parameters": said(own, shared, of="mlp")}
    module = {"slices": [piece], "parameters": said(own, shared, of="norm")}
    data = {
        "merge_method": method,
        "modules": {"default": module},
        "parameters": said(own, shared, of="", wide=True) | fixed,
        "dtype": "float32",
    }
    return yaml.safe_dump(data | ({"base_model": family.base} if with_base else {}))


@pytest.mark.parametrize(("name", "case", "form"), COVERED)
def test_agrees_with_mergekit(name, case, form, family_of, mergekit, assert_agree):
    family = family_of(name)
    if form == "scopes":
        text = scoped(family, case)
        assert_agree(merge_now(loads(text)), parameters(mergekit(text)))
    else:
        merge = recipe(family, *ALL[case], form)
        assert_agree(merge_now(merge), parameters(mergekit(merge)))


@pytest.mark.parametrize("name", DENSE)
def test_arcee_fusion_agrees_with_mergekit_off_the_threshold(name, family_of, mergekit):
    check_fusion(family_of(name), lambda merge: parameters(mergekit(merge)))


DRAWN = ("dare_linear", "dare_ties", "della", "della_linear")


@pytest.mark.parametrize("row", range(len(DENSE)), ids=list(DENSE))
def test_random_masks_agree_with_mergekit_in_distribution(row, family_of, mergekit):
    """Kept share and norm of each tensor are mergekit's, whose masks are others."""
    family, method = family_of(list(DENSE)[row]), DRAWN[row % len(DRAWN)]
    source = Source(family.experts[0], parameters={"weight": 0.8, "density": 0.4})
    merge = Recipe(method, (source,), base_model=family.base, dtype="float32")
    mine, theirs = merge_now(merge), parameters(mergekit(merge))
    base = open_checkpoint(family.base)
    assert mine.keys() == theirs.keys()
    for name in mine:
        a, b = (tensors[name] - base.tensor(name) for tensors in (mine, theirs))
        spread = 6 * (2 * 0.4 * 0.6 / a.numel()) ** 0.5
        assert abs((a != 0).float().mean() - (b != 0).float().mean()) < spread, name
        assert a.abs().sum().item() == pytest.approx(b.abs().sum().item(), rel=1e-3), name


@pytest.fixture(scope="module", params=[*DENSE, *MIXTURES])
def unlike(request, tmp_path_factory):
    """Models of one architecture and unlike vocabularies, and the recipes that are this one's turn."""
    folder = tmp_path_factory.mktemp(request.param)
    known = DENSE | MIXTURES
    models = {}
    for seed, (name, (added, rows)) in enumerate(MODELS.items()):
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(known[request.param](rows)).save_pretrained(folder / name)
        if request.param == "gpt_neox":
            add_buffers(folder / name / "model.safetensors")
        tokenizer(added).save_pretrained(folder / name)
        models[name] = str(folder / name)
    place = list(known).index(request.param)
    elementwise = [name for name in RECIPES if name not in ("ties", "slerp")]
    turns = elementwise if request.param in MIXTURES else list(RECIPES)
    return models, [turns[(2 * place + step) % len(turns)] for step in range(2)]


@pytest.mark.parametrize("turn", range(2))
def test_vocabularies_agree_with_mergekit(turn, unlike, mergekit, tmp_path):
    models, cases = unlike
    merge = RECIPES[cases[turn]](models)
    mergekit(merge)
    save(merge, tmp_path / "out")
    assert_equal_by_token(tmp_path / "out", tmp_path / "mergekit")


ELEMENTWISE = (
    "linear",
    "linear, summed",
    "task_arithmetic",
    "task_arithmetic normalised",
    "nearswap",
    "ram",
    "ramplus_tl",
    "passthrough",
)


@pytest.mark.parametrize("case", ELEMENTWISE)
@pytest.mark.parametrize("name", MIXTURES)
def test_mixtures_agree_with_mergekit(name, case, family_of, mergekit, assert_agree, tmp_path):
    family = family_of(name)
    form = FORMS[ELEMENTWISE.index(case) % 3]
    merge = recipe(family, *ALL[case], form, components=("self_attn", None))
    mergekit(merge)
    save(merge, tmp_path / "out")
    mine, theirs = (
        AutoModelForCausalLM.from_pretrained(tmp_path / folder).state_dict()
        for folder in ("out", "mergekit")
    )
    assert_agree(mine, theirs)


def by_tensor(merge: Recipe, folder: Path) -> dict[str, torch.Tensor]:
    """Merge each of a checkpoint's tensors in float64, as `mergekit-pytorch` does, which knows no layers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mergekit's own
        from mergekit.graph import Executor
        from mergekit.options import MergeOptions
        from mergekit.scripts.merge_raw_pytorch import RawPyTorchMergeConfig, plan_flat_merge

        def file(model: str) -> str:
            return f"{model}/model.safetensors"

        def plain(setting: object) -> object:
            if not isinstance(setting, tuple):
                return setting
            return [{"filter": one.filter, "value": one.value} for one in setting]

        def settings(parameters):
            return {name: plain(setting) for name, setting in parameters.items()}

        config = RawPyTorchMergeConfig.model_validate(
            {
                "merge_method": merge.method,
                "models": [
                    {"model": file(one.model), "parameters": settings(one.parameters)}
                    for one in merge.models
                ],
                "parameters": settings(merge.parameters),
                "base_model": None if merge.base_model is None else file(merge.base_model),
                "dtype": "float64",
            }
        )
        options = MergeOptions(device="cpu", quiet=True)
        Executor(
            plan_flat_merge(config, str(folder), False, False, options), math_device="cpu"
        ).execute()
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("case", [case for case in ALL if case not in ELEMENTWISE])
@pytest.mark.parametrize("name", MIXTURES)
def test_mixtures_agree_with_float64_by_the_checkpoints_tensors(name, case, family_of, tmp_path):
    """Trims, norms and filters are of each expert's own tensors, where mergekit sees all experts as one."""
    family = family_of(name)
    merge = recipe(family, *ALL[case], "filters", components=("experts.1", "self_attn", None))
    mine, expected = merge_now(merge), by_tensor(merge, tmp_path / "float64")
    assert mine.keys() == expected.keys()
    for key, tensor in expected.items():
        worst = (mine[key].double() - tensor).abs().max()
        assert worst <= 1e-6 * tensor.abs().max(), f"{key}: {worst}"
