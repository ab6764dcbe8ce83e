"""Merged vocabularies against mergekit 0.1.5, token by token: it fixes no order of a union's new tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from evomerge.candidate import Recipe, Slice, Source, Vocabulary
from evomerge.errors import ModelError, RecipeError
from evomerge.merge.checkpoint import open_checkpoint
from evomerge.merge.engine import merged_tensors
from evomerge.merge.live import LiveModel
from evomerge.merge.memory import Memory
from evomerge.merge.saving import save
from evomerge.merge.vocabulary import OutputVocabulary
from tests.merge.vocabularies import (
    arithmetic,
    assert_equal_by_token,
    sources,
    tokenizer,
    write,
)

pytestmark = pytest.mark.filterwarnings("ignore")


def override(models: Mapping[str, str], force: bool) -> dict[str, object]:
    return {
        "<tool>": {"source": models["chat"], "force": force},
        "<|im_end|>": {
            "source": {"kind": "model_token", "model": models["pad"], "token": "<pad>"},
            "force": force,
        },
        "<|sys|>": {
            "source": {"kind": "model_token", "model": models["base"], "token_id": 7},
            "force": force,
        },
        "w3": {"source": {"kind": "zero"}, "force": force},
        "<new>": {"source": {"kind": "model_token", "model": models["base"], "token": "w5"}},
    }


RECIPES: dict[str, Callable[[Mapping[str, str]], Recipe]] = {
    "union": lambda m: arithmetic(m, Vocabulary("union")),
    "base": lambda m: arithmetic(m, Vocabulary("base")),
    "a model": lambda m: arithmetic(m, Vocabulary(m["chat"])),
    "a model of other numbers": lambda m: arithmetic(m, Vocabulary(m["pad"])),
    "no input": lambda m: arithmetic(m, Vocabulary(m["short"])),
    "padded": lambda m: arithmetic(m, Vocabulary("union", pad_to_multiple_of=16)),
    "overrides": lambda m: arithmetic(m, Vocabulary("union", override(m, force=False))),
    "forced": lambda m: arithmetic(m, Vocabulary("union", override(m, force=True))),
    "ties": lambda m: arithmetic(
        m,
        Vocabulary("union"),
        method="ties",
        models=sources(m, "chat", "pad", "short"),
        parameters={"density": 0.5},
    ),
    "slerp": lambda m: arithmetic(
        m,
        Vocabulary("union"),
        method="slerp",
        models=(Source(m["base"]), Source(m["chat"])),
        parameters={"t": 0.4},
    ),
    "the base as an input": lambda m: arithmetic(
        m, Vocabulary("union"), method="linear", models=sources(m, "base", "chat", "pad")
    ),
    "slices": lambda m: arithmetic(
        m,
        Vocabulary("union"),
        models=(),
        slices=(
            Slice(tuple(Source(s.model, (0, 1), s.parameters) for s in sources(m, "base", "chat"))),
            Slice(tuple(Source(s.model, (1, 2), s.parameters) for s in sources(m, "base", "pad"))),
        ),
    ),
    "linear beside its base": lambda m: arithmetic(
        m,
        Vocabulary("union"),
        method="linear",
        models=(),
        slices=(
            Slice(
                tuple(
                    Source(s.model, (0, 2), s.parameters)
                    for s in sources(m, "chat", "pad", "short")
                )
            ),
        ),
    ),
}


@pytest.mark.parametrize("case", RECIPES)
def test_tensors_equal_mergekit(case, models, mergekit, tmp_path):
    recipe = RECIPES[case](models)
    mergekit(recipe)
    save(recipe, tmp_path / "out")
    assert_equal_by_token(tmp_path / "out", tmp_path / "mergekit")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert merged.config.vocab_size == len(found["model.embed_tokens.weight"])


@pytest.mark.parametrize("case", RECIPES)
def test_the_live_model_is_the_saved_one(case, models, tmp_path):
    recipe = RECIPES[case](models)
    save(recipe, tmp_path / "out")
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    for budget in (0, 10**9):
        live = LiveModel(
            recipe.model_names(),
            dtype="float32",
            vocabulary=recipe.vocabulary,
            resident_bytes=budget,
        )
        for _ in range(2):
            live.write(recipe)
            for name, tensor in live.module.state_dict().items():
                assert torch.equal(tensor, saved[name]), name
        assert (
            live.tokenizer.get_vocab()
            == AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab()
        )
        assert live.module.config.vocab_size == len(saved["lm_head.weight"])


def test_recipes_of_one_live_model_do_not_share_what_is_filled_up_differently(models, tmp_path):
    """The rows that a model borrows depend on the other inputs."""
    vocabulary = Vocabulary(models["pad"])
    names = [models[name] for name in ("base", "chat", "pad")]
    live = LiveModel(names, dtype="float32", vocabulary=vocabulary, resident_bytes=10**9)
    for inputs in (("chat",), ("chat", "pad"), ("base", "chat"), ("chat",)):
        recipe = Recipe(
            method="linear", models=sources(models, *inputs), dtype="float32", vocabulary=vocabulary
        )
        live.write(recipe)
        checkpoints = {name: open_checkpoint(name) for name in recipe.model_names()}
        expected = dict(merged_tensors(recipe, checkpoints, memory=Memory()))
        assert torch.equal(
            live.module.get_input_embeddings().weight, expected["model.embed_tokens.weight"]
        )


def test_gradients_by_the_weights_go_through_the_merged_vocabulary(models):
    """Against differences of the loss between two weights."""

    def recipe(weight: float) -> Recipe:
        inputs = (Source(models["chat"], None, {"weight": weight}), *sources(models, "pad")[:1])
        return arithmetic(models, Vocabulary("union"), models=inputs, dtype="float64")

    names = [models[name] for name in ("base", "chat", "pad")]
    live = LiveModel(names, dtype="float64", vocabulary=Vocabulary("union"))
    tokens = torch.tensor([[3, 41, 7, 42, 43, 40]])
    factors = torch.randn(1, 6, 45, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def loss() -> torch.Tensor:
        return (live.module(tokens).logits * factors).sum()

    with live.gradients(recipe(0.4)) as tape:
        loss().backward()
        found = sum(
            values
            for tensor in tape.gradients().values()
            for model, values in zip(tensor.models, tensor.own["weight"], strict=True)
            if model == models["chat"]
        )
    ends = []
    for weight in (0.4 - 1e-3, 0.4 + 1e-3):
        live.write(recipe(weight))
        with torch.no_grad():
            ends.append(loss().item())
    assert found == pytest.approx((ends[1] - ends[0]) / 2e-3, rel=1e-4)


def test_a_unions_order_is_the_bases_then_the_models_in_turn(models):
    opened = {models[n]: open_checkpoint(models[n]) for n in ("base", "pad", "chat")}
    union = OutputVocabulary.build(Vocabulary("union"), opened)
    new = {models["pad"]: ("<pad>", "<tool>"), models["chat"]: ("<|im_start|>", "<|im_end|>")}
    assert union.new == new
    assert [union.ids[token] for token in ("<|sys|>", "<pad>", "<tool>", "<|im_start|>")] == [
        40,
        41,
        42,
        43,
    ]
    assert union.rows == 45


def test_a_token_that_is_added_to_the_bases_vocabulary_is_none_of_the_base(models, tmp_path):
    """Row 41 of the base is padding; mergekit takes it for the base's own row of the token."""
    added = {"<tool>": {"source": models["chat"]}}
    save(arithmetic(models, Vocabulary("base", added)), tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab()["<tool>"] == 41
    merged = load_file(tmp_path / "out" / "model.safetensors")["model.embed_tokens.weight"][41]
    chat, pad = (
        open_checkpoint(models[name]).tensor("model.embed_tokens.weight")[row]
        for name, row in (("chat", 43), ("pad", 41))
    )
    assert torch.allclose(merged, chat + 0.5 * (pad - chat), rtol=0, atol=1e-7)


def test_added_special_tokens_stay_special(models, tmp_path):
    save(RECIPES["union"](models), tmp_path / "out")
    merged = AutoTokenizer.from_pretrained(tmp_path / "out")
    text = "w1 <|im_start|> w2"
    ids = merged(text)["input_ids"]
    assert merged.get_vocab()["<|im_start|>"] in ids
    assert "<|im_start|>" not in merged.decode(ids, skip_special_tokens=True)


def test_the_config_names_special_tokens_by_their_new_numbers(models, tmp_path):
    folder = tmp_path / "moved"
    moved = tokenizer({})
    core = json.loads(moved.backend_tokenizer.to_str())
    vocabulary = core["model"]["vocab"]
    vocabulary["</s>"], vocabulary["w5"] = vocabulary["w5"], vocabulary["</s>"]
    for added in core["added_tokens"]:
        added["id"] = vocabulary[added["content"]]
    from tokenizers import Tokenizer

    moved = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(core)),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
    )
    tie = bool(open_checkpoint(models["base"]).config.tie_word_embeddings)
    name = write(folder, moved, 40, 9, tie)
    recipe = arithmetic(models, Vocabulary(name), models=(Source(name, None, {"weight": 0.5}),))
    save(recipe, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    place = AutoTokenizer.from_pretrained(name).get_vocab()["</s>"]
    assert (config["bos_token_id"], config["eos_token_id"]) == (1, place)
    assert place != 2


def test_a_model_without_tokenizer_is_taken_to_have_the_bases(models, tmp_path):
    bare = tmp_path / "bare"
    AutoModelForCausalLM.from_pretrained(models["base"]).save_pretrained(bare)
    recipe = arithmetic(
        models, Vocabulary("union"), models=(Source(str(bare), None, {"weight": 1.0}),)
    )
    save(recipe, tmp_path / "out")
    rows = load_file(tmp_path / "out" / "model.safetensors")["model.embed_tokens.weight"]
    base = open_checkpoint(models["base"]).tensor("model.embed_tokens.weight")
    assert torch.allclose(rows, base[: len(rows)], atol=1e-6)


@pytest.mark.parametrize(
    ("vocabulary", "error", "message"),
    [
        (
            lambda m: Vocabulary("union", {"<tool>": {"source": m["short"]}}),
            RecipeError,
            r"tokenizer\.tokens\.<tool>.* is not among the models",
        ),
        (
            lambda m: Vocabulary("union", {"<tool>": {"source": m["base"]}}),
            RecipeError,
            r"base has no token '<tool>'",
        ),
        (
            lambda m: Vocabulary(
                "union",
                {"<tool>": {"source": {"kind": "model_token", "model": m["base"], "token_id": 48}}},
            ),
            RecipeError,
            r"base has 48 rows, found 48",
        ),
        (
            lambda m: Vocabulary("union", {"<tool>": {}}),
            RecipeError,
            r"a model lacks '<tool>'; say where its row comes from",
        ),
        (lambda m: Vocabulary("/no/such/model"), RecipeError, r"tokenizer\.source.*no such folder"),
    ],
)
def test_errors(vocabulary, error, message, models, tmp_path):
    with pytest.raises(error, match=message) as caught:
        save(arithmetic(models, vocabulary(models)), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_the_base_needs_a_tokenizer(models, tmp_path):
    bare = tmp_path / "bare"
    AutoModelForCausalLM.from_pretrained(models["base"]).save_pretrained(bare)
    recipe = arithmetic(models, Vocabulary("union"), base_model=str(bare))
    with pytest.raises(ModelError, match=r"bare: no tokenizer in this folder, and one is needed"):
        save(recipe, tmp_path / "out")


def test_a_tokenizer_that_is_asked_for_serves_a_base_without_one(models, tmp_path):
    bare = tmp_path / "bare"
    AutoModelForCausalLM.from_pretrained(models["base"]).save_pretrained(bare)
    recipe = arithmetic(
        models,
        Vocabulary(models["chat"]),
        base_model=str(bare),
        models=(Source(models["chat"], None, {"weight": 1.0}),),
    )
    save(recipe, tmp_path / "out")
    found = AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab()
    assert found == AutoTokenizer.from_pretrained(models["chat"]).get_vocab()


def test_tokens_without_rows_are_left_out(models, tmp_path):
    """A tokenizer may have more tokens than the model has rows."""
    tie = bool(open_checkpoint(models["base"]).config.tie_word_embeddings)
    over = write(tmp_path / "over", tokenizer({40: "<|sys|>", 41: "<far>"}), 41, 5, tie)
    recipe = arithmetic(models, Vocabulary("union"), base_model=over)
    save(recipe, tmp_path / "out")
    merged = AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab()
    assert "<far>" not in merged
    assert {"<|sys|>", "<pad>", "<|im_start|>"} <= merged.keys()
