"""Slices of models of unlike depth, against mergekit 0.1.5 and as transformers loads them."""

from __future__ import annotations

from collections import ChainMap
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    Qwen3Config,
)

from evomerge.candidate import Merge, Recipe, Slice, Source
from evomerge.errors import ModelError, RecipeError
from evomerge.merge.checkpoint import open_checkpoint
from evomerge.merge.family import check_family
from evomerge.merge.layout import Layout
from evomerge.merge.plan import plan_merge
from evomerge.merge.saving import save
from tests.conftest import byte_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore")

SLIDING, FULL = "sliding_attention", "full_attention"
KINDS = {
    "llama": (LlamaConfig, {"tie_word_embeddings": False}),
    "qwen3": (Qwen3Config, {"tie_word_embeddings": True, "head_dim": 8}),
    "gemma3": (Gemma3TextConfig, {"tie_word_embeddings": True, "head_dim": 8}),
}


def write(folder: Path, kind: str, layers: int, seed: int, **settings: object) -> str:
    model_config, own = KINDS[kind]
    config = model_config(
        vocab_size=259,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        dtype="float32",
        **own | settings,
    )
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Name of an architecture → a model of 2 layers and one of 4."""

    @cache
    def build(kind: str) -> tuple[str, str]:
        folder = tmp_path_factory.mktemp(kind)
        return write(folder / "shallow", kind, 2, 0), write(folder / "deep", kind, 4, 1)

    return build


def stacked(first: str, second: str) -> Recipe:
    """Both layers of the first, or its first two, and the last two of the second, or all."""
    layers = AutoConfig.from_pretrained(second).num_hidden_layers
    slices = (Slice((Source(first, (0, 2)),)), Slice((Source(second, (layers - 2, layers)),)))
    return Recipe("passthrough", slices=slices, dtype="float32")


def mixed(method: str, shallow: str, deep: str) -> Recipe:
    """A layer of one merged with another layer of the deeper one, between layers of either."""
    if method == "slerp":
        base, mine, theirs, shared = shallow, {}, {}, {"t": 0.3}
    else:
        base, mine, theirs, shared = None, {"weight": 0.3}, {"weight": 0.7}, {}
    pieces = (((0, 1), (3, 4)), ((0, 2), (1, 3)))
    slices = (Slice((Source(shallow, a, mine), Source(deep, b, theirs))) for a, b in pieces)
    return Recipe(method, slices=tuple(slices), base_model=base, parameters=shared, dtype="float32")


RECIPES = {
    "the deeper one last": lambda a, b: stacked(a, b),
    "the deeper one first": lambda a, b: stacked(b, a),
    "linear": lambda a, b: mixed("linear", a, b),
    "slerp": lambda a, b: mixed("slerp", a, b),
}


@pytest.mark.parametrize("case", RECIPES)
@pytest.mark.parametrize("kind", KINDS)
def test_slices_agree_with_mergekit(kind, case, pair, mergekit, assert_agree, tmp_path):
    recipe = RECIPES[case](*pair(kind))
    layers = 4 if recipe.method == "passthrough" else 3
    save(recipe, tmp_path / "out")
    with suppress(
        StrictDataclassError
    ):  # transformers refuses mergekit's layer_types, once all is written
        mergekit(recipe)
    theirs = [load_file(file) for file in (tmp_path / "mergekit").glob("*.safetensors")]
    assert_agree(load_file(tmp_path / "out" / "model.safetensors"), dict(ChainMap(*theirs)))
    model, loading = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(loading.values())
    assert model.config.num_hidden_layers == len(model.model.layers) == layers
    assert model(torch.arange(8)[None]).logits.isfinite().all()


@pytest.mark.parametrize("kind", ["qwen3", "gemma3"])
def test_lists_of_the_config_follow_the_layers(kind, tmp_path):
    """Those of each layer are from the config of the model whose layer it is."""
    settings = {"use_sliding_window": True, "sliding_window": 8} if kind == "qwen3" else {}
    shallow = write(tmp_path / "a", kind, 2, 0, layer_types=[FULL, SLIDING], **settings)
    types = [SLIDING, FULL, FULL, SLIDING]
    deep = write(tmp_path / "b", kind, 4, 1, layer_types=types, **settings)
    pieces = ((shallow, (1, 2)), (deep, (1, 4)), (shallow, (0, 1)), (deep, (0, 1)))
    slices = tuple(Slice((Source(*piece),)) for piece in pieces)
    save(Recipe("passthrough", slices=slices), tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.config.layer_types == [SLIDING, FULL, FULL, SLIDING, FULL, SLIDING]


def test_of_merged_layers_the_first_sources_list_is_taken(tmp_path):
    """Unless the model whose config it is gives the same layer: a group of layers keeps its base's."""
    base = write(tmp_path / "a", "gemma3", 2, 0, layer_types=[FULL, SLIDING])
    other = write(tmp_path / "b", "gemma3", 3, 1, layer_types=[SLIDING, SLIDING, FULL])

    def types(*ranges: tuple[tuple[int, int], tuple[int, int]]) -> list[str]:
        slices = tuple(Slice((Source(other, a), Source(base, b))) for a, b in ranges)
        recipe = Recipe("linear", slices=slices, base_model=base, parameters={"weight": 1})
        plan = plan_merge(recipe, {name: open_checkpoint(name) for name in (base, other)})
        return plan.config.layer_types

    assert types(((0, 2), (0, 2))) == [FULL, SLIDING]
    assert types(((1, 3), (0, 2))) == [SLIDING, FULL]


def test_end_tokens_are_not_taken_for_a_list_of_layers(pair):
    shallow, deep = pair("llama")
    known = {name: open_checkpoint(name) for name in (shallow, deep)}
    known[shallow].config.eos_token_id = [1, 2]  # as many as it has layers
    assert plan_merge(stacked(shallow, deep), known).config.eos_token_id == [1, 2]


def test_a_model_whose_config_has_no_such_list(pair):
    """Takes the base's, where the base has such a layer."""
    shallow, deep = pair("gemma3")
    known = {name: open_checkpoint(name) for name in (shallow, deep)}
    del known[deep].config.layer_types
    one = Slice((Source(shallow, (0, 1)),))
    for layer, expected in ((1, 2), (2, None)):
        recipe = Recipe("passthrough", slices=(one, Slice((Source(deep, (layer, layer + 1)),))))
        if expected is None:
            with pytest.raises(
                RecipeError, match=rf"config of {deep} lacks layer_types for layer 2"
            ):
                plan_merge(recipe, known)
        else:
            assert len(plan_merge(recipe, known).config.layer_types) == expected


@pytest.mark.parametrize("first", [0, 1], ids=["the shallower", "the deeper"])
def test_a_range_beyond_a_model_names_its_own_number_of_layers(first, pair, tmp_path):
    models = pair("llama")
    shallow, deep = models
    for model, layers in ((shallow, 2), (deep, 4)):
        slices = (Slice((Source(models[first], (0, 1)),)), Slice((Source(model, (1, layers + 1)),)))
        with pytest.raises(RecipeError, match=rf"found \[1, .\], {model} has {layers} layers") as e:
            save(Recipe("passthrough", slices=slices), tmp_path / "out")
        assert e.value.field == "slices.1.sources.0.layer_range"


def test_a_source_without_a_range_is_its_whole_model(pair, tmp_path):
    slices = tuple(Slice((Source(model),)) for model in pair("llama"))
    save(Recipe("passthrough", slices=slices), tmp_path / "out")
    assert AutoConfig.from_pretrained(tmp_path / "out").num_hidden_layers == 6


@pytest.mark.parametrize("turned", [False, True], ids=["deeper", "shallower"])
def test_whole_models_of_unlike_depth_are_refused(turned, pair, tmp_path):
    base, expert = reversed(pair("llama")) if turned else pair("llama")
    own = {"weight": 0.5}
    whole = Recipe("task_arithmetic", (Source(expert, parameters=own),), base_model=base)
    groups = Merge(
        method="task_arithmetic",
        base=base,
        experts=(expert,),
        fixed=own,
        groups=((0, 4 if turned else 2),),
    )
    for merge in (whole, groups):
        with pytest.raises(ModelError, match=r"layers\.2\.input_layernorm\.weight \(and 17 more\)"):
            save(merge, tmp_path / "out")
    made = {"one": Recipe("passthrough", slices=(Slice((Source(base),)),)), "two": whole}
    last = Recipe("linear", (Source("one"), Source("two")), parameters={"weight": 1})
    with pytest.raises(
        RecipeError, match=r"unlike depth.* 2 layers.* 4|unlike depth.* 4 layers.* 2"
    ):
        save(last, tmp_path / "out", merges=made)
    assert not (tmp_path / "out").exists()


def test_merges_of_unlike_depth_are_stacked(pair, tmp_path):
    """A merge of several documents, each a merge of another depth."""
    shallow, deep = pair("llama")
    made = {
        "long": stacked(deep, shallow),
        "short": Recipe("passthrough", slices=(Slice((Source(deep, (1, 4)),)),)),
    }
    slices = (Slice((Source("short", (1, 3)),)), Slice((Source("long", (3, 4)),)))
    save(Recipe("passthrough", slices=slices), tmp_path / "out", merges=made)
    merged = load_file(tmp_path / "out" / "model.safetensors")
    up = "mlp.up_proj.weight"
    for layer, (model, origin) in enumerate(((deep, 2), (deep, 3), (shallow, 1))):
        expected = open_checkpoint(model).tensor(f"model.layers.{origin}.{up}")
        assert torch.equal(merged[f"model.layers.{layer}.{up}"], expected)
    assert AutoConfig.from_pretrained(tmp_path / "out").num_hidden_layers == 3


LAST = "model.layers.3.mlp.up_proj.weight"
DAMAGE = {
    "a tensor too many": (
        lambda t: t | {"model.layers.3.extra": torch.ones(1)},
        r"has model\.layers\.3\.extra, which the base \(.*shallow\) lacks",
    ),
    "a tensor too few": (
        lambda t: {name: one for name, one in t.items() if name != LAST},
        r"lacks model\.layers\.3\.mlp\.up_proj\.weight, which the base .* has in its layers",
    ),
    "a layer of another shape": (
        lambda t: t | {LAST: torch.ones(40, 32)},
        r"model\.layers\.3\.mlp\.up_proj\.weight is \[40, 32\], the base's .* \[48, 32\]",
    ),
    "a common layer of another shape": (
        lambda t: t | {LAST.replace("3", "1"): torch.ones(40, 32)},
        r"model\.layers\.1\.mlp\.up_proj\.weight is \[40, 32\], the base's .* \[48, 32\]",
    ),
    "outside the layers": (
        lambda t: t | {"model.norm.weight": torch.ones(16)},
        r"another shape: model\.norm\.weight is \[16\], the base's .* \[32\]",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=list(DAMAGE))
def test_layers_that_the_base_lacks_are_like_those_it_has(damage, message, pair, tmp_path):
    shallow, _ = pair("llama")
    deep = tmp_path / "deep"
    write(deep, "llama", 4, 1)
    base, good = open_checkpoint(shallow), open_checkpoint(str(deep))
    check_family(base, [good], layout_of=Layout.of)
    check_family(good, [base], layout_of=Layout.of)
    with pytest.raises(ModelError, match="which the base"):
        check_family(base, [good])
    save_file(damage(load_file(deep / "model.safetensors")), deep / "model.safetensors")
    with pytest.raises(ModelError, match=message):
        check_family(base, [open_checkpoint(str(deep))], layout_of=Layout.of)


@pytest.mark.parametrize(("shape", "written"), [((64,), r"\[64\]"), (None, "missing")])
def test_layers_of_unlike_tensors_cannot_be_merged(shape, written, pair):
    """Whichever of them comes first."""
    shallow, deep = pair("llama")
    known = {name: open_checkpoint(name) for name in (shallow, deep)}
    name = "model.layers.3.input_layernorm.weight"
    if shape is None:
        del known[deep].tensors[name]
    else:
        known[deep].tensors[name] = replace(known[deep].tensors[name], shape=shape)
    sources = Source(shallow, (0, 1)), Source(deep, (3, 4))
    places = rf"\[32\] in layer 0 of {shallow}", rf"{written} in layer 3 of {deep}"
    for turn in (1, -1):
        recipe = Recipe("linear", slices=(Slice(sources[::turn]),), parameters={"weight": 1})
        first, second = places[::turn]
        message = rf"input_layernorm\.weight is {first}, {second}; they cannot be merged"
        with pytest.raises(RecipeError, match=message):
            plan_merge(recipe, known)
