"""Stacks of members with unlike vocabularies."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.api import merge
from evomerge.candidate import PathStep, Recipe, Slice, Source, Stack, Vocabulary
from evomerge.combine.stack import StackBuilder, save_stack
from evomerge.errors import RecipeError
from evomerge.merge.live import LiveModel
from evomerge.merge.saving import save
from evomerge.space import Family
from evomerge.space.baselines import parent
from tests.merge.vocabularies import arithmetic

pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_stack_has_the_vocabulary_of_its_members(models, tmp_path):
    experts = {name: models[name] for name in ("chat", "pad")}
    union = Vocabulary("union")
    family = Family(models["base"], experts, 2, "float32", union)
    members = {name: parent(family, model) for name, model in experts.items()}
    path = (PathStep("chat", 0), PathStep("pad", 1), PathStep("pad", 1, 0.7))
    stack = Stack(models["base"], members, path)
    save_stack(stack, tmp_path / "out")
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    live = LiveModel(stack.model_names(), dtype="float32", vocabulary=union)
    built = StackBuilder(live).build(stack)
    for name, tensor in saved.items():
        assert torch.equal(built.state_dict()[name], tensor), name
    tokens = AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab()
    assert tokens == live.tokenizer.get_vocab()
    merge(tmp_path / "out" / "recipe.yaml", tmp_path / "again")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again").state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in saved.items())
    assert AutoTokenizer.from_pretrained(tmp_path / "again").get_vocab() == tokens


def test_merges_of_unlike_vocabularies_are_no_stack(models, tmp_path):
    made = {
        name: arithmetic(models, Vocabulary(source))
        for name, source in {"one": "union", "two": "base"}.items()
    }
    slices = tuple(Slice((Source(name, (0, 1)),)) for name in made)
    with pytest.raises(RecipeError, match="one, two choose unlike tokenizers"):
        save(Recipe("passthrough", slices=slices), tmp_path / "out", merges=made)
    again = Recipe("passthrough", slices=slices, vocabulary=Vocabulary("base"))
    with pytest.raises(RecipeError, match="a tokenizer is chosen in each of the merges"):
        save(again, tmp_path / "out", merges={"one": made["one"], "two": made["one"]})
