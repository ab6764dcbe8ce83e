"""What `merge` and `score` answer to what they cannot do: one line, status 2, nothing left behind."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.torch
import torch

from evomerge import candidate as recipe
from evomerge import cli
from evomerge.candidate import Coefficients, Recipe, Source


@pytest.fixture
def recipe_file(llama_family, tmp_path):
    made = Recipe(method="passthrough", models=(Source(llama_family.base),), dtype="float32")
    path = tmp_path / "recipe.yaml"
    recipe.save(made, path)
    return path


def refused(capsys, *arguments: object) -> str:
    status = cli.run_command([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--device", "xpu"], 'device: found "xpu", which cannot be used here'),
        (["--device", "gpu"], 'device: found "gpu", which cannot be used here'),
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


def test_a_method_that_only_mergekit_has(recipe_file, tmp_path, capsys):
    recipe_file.write_text(recipe_file.read_text().replace("passthrough", "nuslerp"))
    message = refused(capsys, "merge", recipe_file, tmp_path / "out")
    assert f'{recipe_file}:1: merge_method: "nuslerp" is a method of mergekit' in message


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
