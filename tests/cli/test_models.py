"""What `merge` and `score` answer to what they cannot do: one line, status 2, nothing left behind."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import safetensors.torch
import torch

from evomerge import candidate as recipe
from evomerge import cli
from evomerge.candidate import Coefficients, Recipe, Source
from evomerge.merge.checkpoint import open_checkpoint


@pytest.fixture
def recipe_file(llama_family, tmp_path):
    made = Recipe(method="passthrough", models=(Source(llama_family.base),), dtype="float32")
    path = tmp_path / "recipe.yaml"
    recipe.save(made, path)
    return path


def refused(capsys, *arguments: object, expected: int = 2) -> str:
    status = cli.run_command([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert (status, out) == (expected, "")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--device", "xpu"], 'device: found "xpu", which cannot be used here'),
        (["--device", "gpu"], 'device: found "gpu", which cannot be used here'),
        (
            ["--max-shard-size", "5 GiB"],
            'max-shard-size: found "5 GiB", expected a size such as 500MB',
        ),
        (["--max-shard-size", "0GB"], 'max-shard-size: found "0GB"'),
        (["--dtype", "fp8"], 'evomerge: dtype: found "fp8", expected one of float32, bfloat16'),
    ],
)
def test_flags(flags, message, recipe_file, tmp_path, capsys):
    assert message in refused(capsys, "merge", recipe_file, tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()


def test_a_folder_where_a_recipe_is_expected(recipe_file, tmp_path, capsys):
    message = refused(capsys, "merge", tmp_path, tmp_path / "out")
    assert f"{tmp_path}: is a folder; name its recipe: {recipe_file}" in message
    recipe_file.rename(tmp_path / "campaign.yaml")
    assert "say which trial" in refused(capsys, "merge", tmp_path, tmp_path / "out")
    (tmp_path / "campaign.yaml").unlink()
    assert "expected a recipe" in refused(capsys, "merge", tmp_path, tmp_path / "out")


def by_row(family, tables, name="task_arithmetic"):
    sources = tuple(Source(model, parameters={"weight": 0.3}) for model in family.experts)
    if name == "slerp":
        sources = (Source(family.experts[0]),)
    shared = {"t": 0.5} if name == "slerp" else {}
    return Recipe(name, sources, base_model=family.base, parameters=shared, coefficients=tables)


def table(experts, rows, value=0.1):
    return np.full((experts, rows), value, np.float32)


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    ("tables", "name", "message"),
    [
        ({"model.nose.weight": table(3, 1)}, "task_arithmetic", "model.nose.weight, which is no"),
        ({NORM: table(2, 32)}, "task_arithmetic", "coefficients of 2 experts, the recipe has 3"),
        ({NORM: table(3, 31)}, "ties", f"{NORM}: found coefficients of 31 rows, expected 32, or 1"),
        ({NORM: table(3, 1, np.nan)}, "dare_ties", f"{NORM}: found NaN or infinity"),
        ({NORM: table(1, 1)}, "slerp", "slerp takes no weights by tensor or row"),
    ],
)
def test_coefficients_that_do_not_fit(tables, name, message, llama_family, tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    recipe.save(by_row(llama_family, Coefficients(tables), name), path)
    line = path.read_text().count("\n")
    found = refused(capsys, "merge", path, tmp_path / "out")
    assert f"{path}:{line}: coefficients: " in found
    assert message in found
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist; the recipe cannot be merged without it"),
        (b"weights", "not a safetensors file ("),
        (safetensors.torch.save({NORM: torch.ones(3, 1, dtype=torch.bfloat16)}), "found BF16"),
        (safetensors.torch.save({NORM: torch.ones(3)}), f"{NORM}: found float32 of 1 dimensions"),
    ],
)
def test_a_file_that_holds_no_coefficients(content, message, llama_family, tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    recipe.save(by_row(llama_family, Coefficients({NORM: table(3, 1)})), path)
    file = tmp_path / "coefficients.safetensors"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    found = refused(capsys, "merge", path, tmp_path / "out")
    assert f"coefficients: {file}: " in found
    assert message in found


def test_several_documents(recipe_file, tmp_path, capsys):
    lines = recipe_file.read_text().count("\n")
    recipe_file.write_text(recipe_file.read_text() + "---\nmerge_method: linear\n")
    message = refused(capsys, "merge", recipe_file, tmp_path / "out")
    assert f"{recipe_file}:{lines + 2}: expected one of models, slices and modules" in message


@pytest.mark.parametrize(
    ("method", "experts", "shared", "line", "message"),
    [
        (
            "nuslerp",
            1,
            {"weight": 1.0},
            3,
            "nuslerp takes exactly 2 model(s) besides the base, found 1",
        ),
        (
            "model_stock",
            1,
            {},
            3,
            "model_stock takes at least 2 model(s) besides the base, found 1",
        ),
        (
            "arcee_fusion",
            2,
            {},
            3,
            "arcee_fusion takes exactly 1 model(s) besides the base, found 2",
        ),
        ("nearswap", 1, {}, None, "nearswap needs a t for model.embed_tokens.weight"),
        (
            "della",
            2,
            {"weight": 1.0, "epsilon": 1.5},
            8,
            "found 1.5, expected a number from 0 to 1",
        ),
        (
            "breadcrumbs",
            2,
            {"weight": 1.0, "gamma": -0.1},
            8,
            "found -0.1, expected a number from 0 to 1",
        ),
        ("sce", 2, {"select_topk": 2}, 7, "found 2, expected a number from 0 to 1"),
        ("karcher", 2, {"max_iter": 2.5}, 7, "found 2.5, expected a whole number"),
        ("ram", 2, {"epsilon": -1.0}, 7, "found -1.0, expected a number of at least 0"),
        ("ramplus_tl", 2, {"rho": 1.0}, 7, 'ramplus_tl has no parameter "rho"'),
        ("regmean", 2, {"weight": -0.5}, 7, "found -0.5, expected a number of at least 0"),
        ("regmean", 2, {"weight": 1.0, "ridge": -1}, 8, "expected a number of at least 0"),
        ("tsv", 2, {"weight": 1.0, "rank_share": 1.5}, 8, "expected a number from 0 to 1"),
        ("iso_cts", 2, {"weight": 1.0, "common_share": -1}, 8, "expected a number from 0 to 1"),
        ("iso_c", 2, {"weight": 1.0, "density": 0.5}, 8, 'iso_c has no parameter "density"'),
        ("ties", 2, {"weight": 1.0, "calibrate": 2}, 8, "found 2, expected true or false"),
        ("slerp", 1, {"t": 0.5, "calibrate": True}, 7, 'slerp has no parameter "calibrate"'),
        ("multislerp", 2, {"weight": [1.0, -1.0]}, None, "sum to 0 and cannot be normalised"),
        ("multislerp", 2, {"weight": 0.0}, None, "sum to 0 and cannot be normalised"),
    ],
)
def test_what_a_method_cannot_merge(
    method, experts, shared, line, message, llama_family, tmp_path, capsys
):
    weights = shared.get("weight")
    own = [{"weight": one} for one in weights] if isinstance(weights, list) else [{}] * experts
    sources = zip(llama_family.experts, own, strict=False)
    made = Recipe(
        method,
        tuple(Source(model, parameters=one) for model, one in sources),
        base_model=llama_family.base,
        parameters={} if isinstance(weights, list) else shared,
        dtype="float32",
    )
    path = tmp_path / "recipe.yaml"
    recipe.save(made, path)
    # What is wrong with a recipe is 2; what the maths cannot answer is 1.
    expected = 1 if "sum to 0" in message else 2
    found = refused(capsys, "merge", path, tmp_path / "out", expected=expected)
    assert message in found
    assert line is None or f"{path}:{line}: " in found
    assert not (tmp_path / "out").exists()


def test_opposed_experts_of_multislerp(llama_family, tmp_path, capsys):
    """Two pairs of task vectors that cancel out, written as models."""
    base = safetensors.torch.load_file(f"{llama_family.base}/model.safetensors")
    one = safetensors.torch.load_file(f"{llama_family.experts[0]}/model.safetensors")
    folders = []
    for number, factor in enumerate((1, -1, 1, -1)):
        folder = tmp_path / str(number)
        shutil.copytree(llama_family.base, folder)
        # Powers of two, so that task vectors are opposed to the bit.
        moved = {
            name: tensor + factor * 2.0**-4 * (one[name] - tensor).sign()
            for name, tensor in ((key, torch.zeros_like(each)) for key, each in base.items())
        }
        safetensors.torch.save_file(moved, folder / "model.safetensors", {"format": "pt"})
        folders.append(str(folder))
    made = Recipe(
        "multislerp", tuple(map(Source, folders)), parameters={"weight": 0.25}, dtype="float32"
    )
    recipe.save(made, tmp_path / "recipe.yaml")
    found = refused(capsys, "merge", tmp_path / "recipe.yaml", tmp_path / "out", expected=1)
    assert "the weighted unit vectors of 4 models cancel out" in found
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "method",
    ["breadcrumbs", "della_linear", "sce", "arcee_fusion", "karcher", "regmean", "tsv", "iso_c"],
)
def test_an_expert_that_holds_nan(method, llama_family, tmp_path, capsys):
    folder = tmp_path / "broken"
    shutil.copytree(llama_family.experts[0], folder)
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    weight = {} if method in ("sce", "arcee_fusion", "karcher") else {"weight": 1.0}
    made = Recipe(method, (Source(str(folder)),), base_model=llama_family.base, parameters=weight)
    recipe.save(made, tmp_path / "recipe.yaml")
    found = refused(capsys, "merge", tmp_path / "recipe.yaml", tmp_path / "out")
    assert "model.norm.weight holds NaN in 1 of 32 values" in found
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "say what to score on: --tasks A,B or --campaign DIR"),
        (["--tasks", ","], "say what to score on"),
        (["--tasks", "a", "--campaign", "dir"], "found --tasks and --campaign; expected one"),
        (["--tasks", "a", "--split", "select"], "--split is of a campaign's items"),
        (
            ["--campaign", "dir", "--limit", "3", "--num-fewshot", "0"],
            "found --num-fewshot and --limit beside --campaign",
        ),
        (["--tasks", "a", "--out", "."], ".: is a folder; expected a file to write to"),
        (["--tasks", "a", "--out", "/proc/a.json"], "/proc/a.json: cannot be written"),
        (["--tasks", "a", "--limit", "0"], "greater than or equal to 1"),
    ],
)
def test_what_to_score_on(flags, message, capsys):
    assert message in refused(capsys, "score", "zoo:facts", *flags)


def test_files_are_as_large_as_asked_for_and_progress_is_shown(recipe_file, tmp_path, capsys):
    options = ["--max-shard-size", "0.02MB", "--display", "plain"]
    command = ["merge", str(recipe_file), str(tmp_path / "out"), *options]
    assert cli.run_command(command) == 0
    files = list((tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 2
    assert all(file.stat().st_size < 40_000 for file in files)
    _, progress = capsys.readouterr()
    count = len(open_checkpoint(str(tmp_path / "out")).tensors)
    assert f"merge: {count} of {count}" in progress
