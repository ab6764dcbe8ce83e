"""A merge that is made of merges: mergekit-multimerge's files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from evomerge import api
from evomerge.candidate import Merge, PathStep, Recipe, Slice, Source, Stack, Vocabulary, save
from evomerge.cli import run_command
from evomerge.combine.stack import save_stack
from evomerge.errors import ModelError, RecipeError
from evomerge.merge.saving import save as save_merge
from tests.merge.vocabularies import of_words, write


def linear(*models: str, **settings: object) -> Recipe:
    weights = (0.3, 0.9)
    sources = (Source(m, parameters={"weight": w}) for m, w in zip(models, weights, strict=True))
    return Recipe("linear", tuple(sources), dtype="float32", **settings)


def saved(recipe: Recipe, out: Path, **settings: object) -> dict[str, torch.Tensor]:
    save_merge(recipe, out, **settings)
    return load_file(out / "model.safetensors")


def test_it_is_what_saving_each_merge_first_gives(llama_family, tmp_path):
    base, one, two, three = llama_family.models
    merges = {"first": linear(one, two), "second": linear(two, three)}
    final = Recipe(
        "task_arithmetic",
        tuple(Source(name, parameters={"weight": 0.6}) for name in merges),
        base_model=base,
        dtype="float32",
    )
    found = saved(final, tmp_path / "at once", merges=merges)
    for name, merge in merges.items():
        saved(merge, tmp_path / name)
    expected = saved(final.renamed(lambda m: str(tmp_path / m)), tmp_path / "apart")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_rounding_is_that_of_the_merges_in_between(llama_family, tmp_path):
    _, one, two, three = llama_family.models
    half = Recipe(**{**vars(linear(one, two)), "dtype": "bfloat16"})
    final = linear("half", three)
    found = saved(final, tmp_path / "at once", merges={"half": half})
    saved(half, tmp_path / "half")
    apart = saved(linear(str(tmp_path / "half"), three), tmp_path / "apart")
    assert all(torch.equal(found[name], apart[name]) for name in apart)


@pytest.mark.parametrize("place", [0, 2])
def test_a_model_that_holds_nan_is_named_in_a_merge_and_beside_one(place, llama_family, tmp_path):
    models = list(llama_family.experts)
    broken = Path(shutil.copytree(models[place], tmp_path / "broken"))
    tensors = load_file(broken / "model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    models[place] = str(broken)
    final = linear("first", models[2])
    with pytest.raises(ModelError, match=r"model\.norm\.weight holds NaN") as found:
        save_merge(final, tmp_path / "out", merges={"first": linear(*models[:2])})
    assert str(broken) in str(found.value)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def file(llama_family, tmp_path) -> Path:
    """A file of two documents."""
    _, one, two, three = llama_family.models
    path = tmp_path / "recipe.yaml"
    slices = (Slice((Source("first", (0, 3)),)), Slice((Source(three, (2, 4)),)))
    save(Recipe("passthrough", slices=slices), path, {"first": linear(one, two)})
    return path


def test_the_command_reads_it(file, tmp_path):
    assert run_command(["merge", str(file), str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "recipe.yaml").read_text() == file.read_text()
    assert load_file(tmp_path / "out" / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("layer_range: [2, 4]", "layer_range: [2, 5]"), "has 4 layers"),
        (("weight: 0.9", "wight: 0.9"), "first.models.1.parameters.wight: linear has no param"),
        (("name: first", "name: 3"), "name: found 3, expected a name"),
        (("name: first\n", ""), "name: found no second name"),
        (("merge_method: passthrough", "name: last\nmerge_method: passthrough"), "has a name"),
        (
            ("merge_method: linear", "merge_method: linar"),
            'first.merge_method: unknown method "linar"',
        ),
        (("weight: 0.9", "weight: [0.9"), "not valid YAML"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(change, message, file, tmp_path, capsys):
    file.write_text(file.read_text().replace(*change))
    assert run_command(["merge", str(file), str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(file) in line
    assert message in line
    assert not (tmp_path / "out").exists()


def test_the_line_of_a_fault_in_a_later_document(file, tmp_path):
    text = file.read_text()
    file.write_text(text.replace("layer_range: [2, 4]", "layer_range: [2, 5]"))
    line = 1 + next(n for n, one in enumerate(text.splitlines()) if "[2, 4]" in one)
    with pytest.raises(RecipeError, match=f"recipe.yaml:{line}: "):
        api.merge(file, tmp_path / "out")


def test_merges_of_merges_and_unlike_tokenizers_are_refused(llama_family, tmp_path):
    base, one, two, three = llama_family.models
    nested = {"first": linear(one, two), "second": linear("first", three)}
    final = linear("second", base)
    with pytest.raises(RecipeError, match="second: is made of first"):
        save_merge(final, tmp_path / "out", merges=nested)


WORDS = [f"w{number}" for number in range(9)]
ORDERS = {
    "plain": ["<unk>", "<s>", "</s>", "<pad>", *WORDS],
    "moved": ["<unk>", "<pad>", "<s>", "</s>", *WORDS],
    "longer": ["<unk>", "<pad>", "<s>", "</s>", *WORDS, "<tool>"],
}


@pytest.fixture(scope="module")
def unlike(tmp_path_factory) -> dict[str, str]:
    """Models whose special tokens have unlike numbers; one has a token more."""
    folder = tmp_path_factory.mktemp("unlike")
    return {
        name: write(folder / name, of_words(words), len(words), seed, tie=False)
        for seed, (name, words) in enumerate(ORDERS.items())
    }


def by_token(folder: str | Path) -> dict[str, torch.Tensor]:
    """Token → its row of the embeddings and of the head."""
    tensors = load_file(Path(folder) / "model.safetensors")
    both = [tensors[name] for name in ("model.embed_tokens.weight", "lm_head.weight")]
    ids = AutoTokenizer.from_pretrained(folder).get_vocab()
    assert {len(one) for one in both} == {len(ids)}
    return {token: torch.stack([one[row] for one in both]) for token, row in ids.items()}


def mean(*models: str, **settings: object) -> Recipe:
    sources = tuple(Source(model, None, {"weight": 0.5}) for model in models)
    return Recipe("linear", sources, dtype="float32", **settings)


def assert_rows(folder: Path, expected: Mapping[str, torch.Tensor]) -> None:
    found = by_token(folder)
    assert found.keys() == expected.keys()
    wrong = [t for t, rows in expected.items() if not torch.allclose(found[t], rows, atol=1e-6)]
    assert not wrong


def assert_names_specials(folder: Path, words: list[str]) -> None:
    for name in ("config.json", "generation_config.json"):
        found = json.loads((folder / name).read_text())
        assert [words[found[key]] for key in ("bos_token_id", "eos_token_id")] == ["<s>", "</s>"]


@pytest.mark.parametrize("last", [("first", "plain"), ("plain", "first")])
@pytest.mark.parametrize("other", ["moved", "longer"])
def test_a_model_beside_a_merge_is_matched_by_token(other, last, unlike, tmp_path):
    first = mean(unlike["plain"], unlike[other], vocabulary=Vocabulary(unlike[other]))
    final = mean(*(unlike.get(name, name) for name in last))
    save_merge(final, tmp_path / "out", merges={"first": first})
    one, two = by_token(unlike["plain"]), by_token(unlike[other])
    # what a model lacks it gets from its only owner
    expected = {token: 0.75 * one.get(token, rows) + 0.25 * rows for token, rows in two.items()}
    assert_rows(tmp_path / "out", expected)
    assert_names_specials(tmp_path / "out", ORDERS[other])


def test_the_base_of_a_vocabulary_is_that_of_the_merges(unlike, tmp_path):
    first = mean(unlike["moved"], unlike["plain"], vocabulary=Vocabulary("base"))
    save_merge(mean(unlike["plain"], "first"), tmp_path / "out", merges={"first": first})
    one, two = by_token(unlike["plain"]), by_token(unlike["moved"])
    assert_rows(tmp_path / "out", {t: 0.75 * one[t] + 0.25 * rows for t, rows in two.items()})
    ids = AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab()
    assert sorted(ids, key=ids.get) == ORDERS["moved"]
    assert_names_specials(tmp_path / "out", ORDERS["moved"])


def test_a_merge_gets_a_row_that_only_the_model_beside_it_has(unlike, tmp_path):
    first = mean(unlike["plain"], unlike["moved"], vocabulary=Vocabulary("union"))
    save_merge(mean("first", unlike["longer"]), tmp_path / "out", merges={"first": first})
    one, two, three = (by_token(unlike[name]) for name in ORDERS)
    expected = {t: 0.25 * one[t] + 0.25 * two[t] + 0.5 * three[t] for t in one}
    assert_rows(tmp_path / "out", {**expected, "<tool>": three["<tool>"]})


def test_padding_and_overrides_of_the_merges_stay(unlike, tmp_path):
    asked = Vocabulary(unlike["moved"], {"w3": {"source": {"kind": "zero"}, "force": True}}, 8)
    first = mean(unlike["plain"], unlike["moved"], vocabulary=asked)
    merges = {"first": first, "second": first}
    found = saved(mean(*merges), tmp_path / "out", merges=merges)
    alone = saved(first, tmp_path / "alone")
    assert all(torch.equal(found[name], alone[name]) for name in alone)


def test_special_tokens_of_a_merge_are_moved_once(unlike, tmp_path):
    asked = Vocabulary(unlike["moved"])
    first = mean(unlike["plain"], unlike["moved"], vocabulary=asked)
    final = Recipe("passthrough", (Source("first"),))
    save_merge(final, tmp_path / "out", merges={"first": first})
    assert_names_specials(tmp_path / "out", ORDERS["moved"])
    second = mean(unlike["moved"], unlike["plain"], vocabulary=asked)
    merges = {"first": first, "second": second}
    save_merge(mean("second", "first"), tmp_path / "two", merges=merges)
    assert_names_specials(tmp_path / "two", ORDERS["moved"])
    member = Merge(
        "linear", (unlike["plain"], unlike["moved"]), fixed={"weight": 0.5}, vocabulary=asked
    )
    stack = Stack(
        unlike["plain"], {"a": member}, (PathStep("a", 0), PathStep("a", 1), PathStep("a", 1))
    )
    save_stack(stack, tmp_path / "stack")
    assert_names_specials(tmp_path / "stack", ORDERS["moved"])
