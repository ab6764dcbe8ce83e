"""Folders that transformers loads, whole or not at all."""

from __future__ import annotations

import json
import os
import resource
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.candidate import Coefficients, Merge, Recipe, Slice, Source, load
from evomerge.errors import MergeError, ModelError, RecipeError, ResultsError
from evomerge.merge import fused
from evomerge.merge.checkpoint import open_checkpoint
from evomerge.merge.engine import merged_tensors
from evomerge.merge.live import LiveModel
from evomerge.merge.methods import method
from evomerge.merge.saving import save


def ties(family, **changes) -> Recipe:
    return Recipe(
        **{
            "method": "ties",
            "models": tuple(Source(model) for model in family.experts),
            "base_model": family.base,
            "parameters": {"weight": 0.5, "density": 0.4},
            "dtype": "float32",
        }
        | changes
    )


def merged(recipe: Recipe) -> dict[str, torch.Tensor]:
    return dict(
        merged_tensors(recipe, {name: open_checkpoint(name) for name in recipe.model_names()})
    )


def stored(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for file in folder.glob("*.safetensors"):
        tensors |= load_file(file)
    return tensors


def same(left, right) -> bool:
    return left.keys() == right.keys() and all(
        torch.equal(left[name], right[name]) for name in left
    )


@pytest.mark.parametrize("name", ["llama_family", "qwen2_family"])
def test_plain_transformers_loads_it(name, request, tmp_path):
    family = request.getfixturevalue(name)
    recipe = ties(family)
    out = tmp_path / "deep" / "er" / "out"
    save(recipe, out)
    model = AutoModelForCausalLM.from_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    weights = model.state_dict()
    assert all(torch.equal(weights[key], tensor) for key, tensor in merged(recipe).items())
    assert model.generation_config.eos_token_id == 2
    assert "assistant: " in tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], add_generation_prompt=True, tokenize=False
    )
    ids = tokenizer("hello", return_tensors="pt")["input_ids"]
    assert model.generate(ids, max_new_tokens=2, do_sample=False).shape[1] <= ids.shape[1] + 2
    assert load(out / "recipe.yaml") == recipe
    assert "`ties`" in (out / "README.md").read_text(encoding="utf-8")
    assert (out / "README.md").stat().st_mode & 0o044
    assert out.stat().st_mode & 0o055 == 0o055
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtypes(dtype, llama_family, tmp_path):
    recipe = ties(llama_family)
    save(recipe, tmp_path / "out", dtype=dtype)
    wanted = getattr(torch, dtype)
    exact = merged(recipe)
    for name, tensor in stored(tmp_path / "out").items():
        assert torch.equal(tensor, exact[name].to(wanted))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == dtype
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == wanted


def test_shards(llama_family, tmp_path):
    recipe = ties(llama_family)
    save(recipe, tmp_path / "out", shard_bytes=40_000)
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 2
    assert all(file.name.endswith(f"-of-{len(files):05d}.safetensors") for file in files)
    assert same(stored(tmp_path / "out"), merged(recipe))
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == merged(recipe).keys()
    total = sum(tensor.nbytes for tensor in merged(recipe).values())
    assert index["metadata"]["total_size"] == total
    weights = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    assert same({name: weights[name] for name in index["weight_map"]}, merged(recipe))


def test_the_file_is_recognised_and_is_the_same_twice(llama_family, tmp_path):
    for name in ("one", "two"):
        save(ties(llama_family, method="dare_ties", seed=4), tmp_path / name)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]


@pytest.mark.parametrize("name", ["llama_family", "qwen2_family"])
def test_mergekit_rebuilds_it_from_its_recipe(name, request, tmp_path, mergekit, assert_agree):
    save(ties(request.getfixturevalue(name)), tmp_path / "out")
    assert_agree(stored(tmp_path / "out"), mergekit(load(tmp_path / "out" / "recipe.yaml")))


@pytest.mark.parametrize("name", ["llama_family", "qwen2_family"])
def test_stacked_layers_load(name, request, tmp_path):
    family = request.getfixturevalue(name)
    pieces = (
        Slice((Source(family.base, (0, 2)),)),
        Slice((Source(family.experts[0], (0, 2)),)),
        Slice((Source(family.experts[1], (1, 2)),)),
    )
    save(Recipe(method="passthrough", slices=pieces), tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.config.num_hidden_layers == 5
    loaded, donor = model.state_dict(), load_file(f"{family.experts[1]}/model.safetensors")
    layer = "mlp.up_proj.weight"
    assert torch.equal(loaded[f"model.layers.4.{layer}"], donor[f"model.layers.1.{layer}"])
    assert torch.isfinite(model(torch.tensor([[3, 4]])).logits).all()


def test_a_repeated_layer_is_written_twice(llama_family, tmp_path):
    """In the dtype in which it is stored, where nothing has to be computed."""
    expert = llama_family.experts[0]
    slices = tuple(Slice((Source(expert, part),)) for part in ((0, 2), (1, 2)))
    save(Recipe(method="passthrough", slices=slices, dtype="float32"), tmp_path / "out")
    written, before = stored(tmp_path / "out"), stored(Path(expert))
    for name in written:
        origin = name.replace("layers.2.", "layers.1.")
        assert torch.equal(written[name], before[origin])


def test_card_and_chat_template(llama_family, tmp_path):
    recipe = ties(llama_family, chat_template="chatml")
    save(recipe, tmp_path / "out", card="# mine\n")
    assert (tmp_path / "out" / "README.md").read_text(encoding="utf-8") == "# mine\n"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    text = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert text == "<|im_start|>user\nhi<|im_end|>\n"


@pytest.mark.parametrize(("mask", "folder", "file"), [(0o022, 0o755, 0o644), (0o007, 0o770, 0o660)])
def test_modes_are_those_of_the_umask(mask, folder, file, llama_family, tmp_path):
    before = os.umask(mask)
    try:
        save(ties(llama_family, chat_template="chatml"), tmp_path / "a" / "out", shard_bytes=50_000)
    finally:
        os.umask(before)
    modes = {path: path.stat().st_mode & 0o777 for path in (tmp_path / "a").rglob("*")}
    assert modes.pop(tmp_path / "a" / "out") == folder
    assert set(modes.values()) == {file}
    assert len(modes) > 8


@pytest.mark.parametrize("name", ["linear", "task_arithmetic", "ties", "dare_linear", "dare_ties"])
def test_weights_by_row_are_saved_as_they_are_live(name, qwen2_family, tmp_path):
    """And the recipe, with the coefficients beside it, makes the same bytes again."""
    takes = method(name)
    live = LiveModel(qwen2_family.models, dtype="bfloat16")
    generator = np.random.default_rng(1)
    tables = {
        tensor: generator.normal(0, 0.3, (3, len(live.module.state_dict()[tensor]))).astype("f4")
        for tensor in ("model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.bias")
    }
    tables["model.layers.1.mlp.up_proj.weight"] = np.full((3, 1), 0.25, "f4")
    merge = Merge(
        name,
        qwen2_family.experts,
        qwen2_family.base if takes.needs_base else None,
        merges_base=takes.needs_base,
        groups=((0, 1), (1, 2)) if name == "ties" else (),
        own={"weight": (((0.0, 0.5, 0.25),),)},
        fixed={"normalize": name != "dare_ties"}
        | ({"density": 0.5} if "density" in takes.parameters else {}),
        dtype="bfloat16",
        coefficients=Coefficients(tables),
    )
    live.write(merge)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        save(merge, tmp_path / "out")
    finally:
        torch.set_num_threads(threads)
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(live.module.state_dict()[key], found) for key, found in written.items())
    recipe = load(tmp_path / "out" / "recipe.yaml")
    assert recipe.coefficients == merge.coefficients
    live.write(recipe)
    assert all(torch.equal(live.module.state_dict()[key], found) for key, found in written.items())
    save(recipe, tmp_path / "again")
    for file in ("model.safetensors", "coefficients.safetensors", "recipe.yaml"):
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {"model.safetensors"}
    assert "cannot build this merge" in (tmp_path / "out" / "README.md").read_text()
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    plain = replace(merge, coefficients=None)
    save(plain, tmp_path / "plain")
    assert not (tmp_path / "plain" / "coefficients.safetensors").exists()
    assert not same(load_file(tmp_path / "plain" / "model.safetensors"), written)


def test_an_existing_folder_is_refused_or_replaced(llama_family, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("x", encoding="utf-8")
    with pytest.raises(ResultsError, match="exists already; name another folder"):
        save(ties(llama_family), out)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    save(ties(llama_family), out, replace=True)
    assert not (out / "mine.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"parameters": {"weight": 1, "density": 2}}, RecipeError, "from 0 to 1"),
        ({"base_model": "/nowhere"}, ModelError, "no such folder"),
        ({"chat_template": "chatmI"}, RecipeError, 'did you mean "chatml"'),
        ({"method": "linear", "parameters": {"weight": 0}}, MergeError, "sum to 0"),
    ],
)
def test_a_failure_leaves_nothing(changes, error, message, llama_family, tmp_path):
    with pytest.raises(error, match=message):
        save(ties(llama_family, **changes), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("one_pass", [False, True])
@pytest.mark.parametrize("method", ["linear", "task_arithmetic", "ties"])
@pytest.mark.parametrize("weight", [0.5, 0.0])
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_what_is_not_finite_is_named(
    value, weight, method, one_pass, llama_family, tmp_path, monkeypatch
):
    """Whatever the method would make of it, and whether it is seen in the result or looked for before."""
    monkeypatch.setattr(fused, "FEWEST", 1 if one_pass else 10**9)
    broken = Path(shutil.copytree(llama_family.experts[1], tmp_path / "broken"))
    tensors = load_file(broken / "model.safetensors")
    tensors["model.norm.weight"][3] = value
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    sources = (
        Source(llama_family.experts[0], parameters={"weight": 0.5}),
        Source(str(broken), parameters={"weight": weight}),
    )
    base = None if method == "linear" else llama_family.base
    with pytest.raises(ModelError, match=r"model\.norm\.weight holds .* in 1 of 32") as found:
        save(Recipe(method, sources, base_model=base), tmp_path / "out")
    assert str(broken) in str(found.value)
    assert not (tmp_path / "out").exists()


def test_a_result_beyond_its_dtype_is_no_fault_of_the_inputs(llama_family, tmp_path):
    sources = tuple(Source(one, parameters={"weight": 1e6}) for one in llama_family.experts)
    recipe = Recipe("linear", sources, parameters={"normalize": False}, dtype="float16")
    save(recipe, tmp_path / "out")
    assert any(one.isinf().any() for one in stored(tmp_path / "out").values())


def test_a_failure_leaves_the_old_folder_whole(llama_family, tmp_path):
    out = tmp_path / "out"
    save(ties(llama_family), out)
    before = (out / "model.safetensors").read_bytes()
    with pytest.raises(MergeError):
        save(ties(llama_family, method="linear", parameters={"weight": 0}), out, replace=True)
    assert (out / "model.safetensors").read_bytes() == before
    assert list(tmp_path.iterdir()) == [out]


def test_a_disk_that_does_not_take_the_weights(llama_family, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(MergeError, match=r"out cannot be written: File too large"):
            save(ties(llama_family), tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_does_not_take_it(llama_family, tmp_path, monkeypatch):
    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(MergeError, match="out cannot be written: No space left on device"):
        save(ties(llama_family), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ResultsError, match="cannot be written"):
        save(ties(llama_family), tmp_path / "file" / "out")
