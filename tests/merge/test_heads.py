"""Embeddings and heads by their names, as transformers has them, and one kind of head in a family."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
    PhiConfig,
    Qwen2Config,
)

from evomerge.merge.checkpoint import Checkpoint, open_checkpoint
from evomerge.merge.family import check_family
from evomerge.merge.files import TensorHeader
from evomerge.merge.heads import (
    VocabularyTensors,
    is_head,
    is_tied,
    resized_config,
    untied_config,
    with_heads,
)

EMBEDDING = "model.embed_tokens.weight"


def in_memory(name: str, *, tied: bool, **tensors: torch.Tensor) -> Checkpoint:
    """A model of 6 tokens; names are given with `__` for a dot."""
    known = {
        EMBEDDING: torch.randn(6, 4),
        **{key.replace("__", "."): value for key, value in tensors.items()},
    }
    return Checkpoint(
        name=name,
        folder=Path(name),
        config=LlamaConfig(vocab_size=6, tie_word_embeddings=tied),
        tensors={key: TensorHeader(tuple(one.shape), one.dtype) for key, one in known.items()},
        _read=known.__getitem__,
    )


def test_a_tied_model_gives_its_embeddings_as_the_head_of_the_others():
    norm, head = torch.randn(4), torch.randn(6, 4)
    tied = in_memory("tied", tied=True, model__norm__weight=norm)
    own = in_memory("own", tied=False, embed_out__weight=head)
    found = with_heads({"tied": tied, "own": own})
    assert found["own"] is own
    seen = found["tied"]
    assert list(seen.tensors) == ["embed_out.weight", EMBEDDING, "model.norm.weight"]
    assert torch.equal(seen.tensor("embed_out.weight"), tied.tensor(EMBEDDING))
    assert torch.equal(seen.tensor("model.norm.weight"), norm)
    assert not seen.config.tie_word_embeddings
    assert tied.config.tie_word_embeddings
    assert "embed_out.weight" not in tied.tensors


def test_the_usual_name_goes_before_others():
    head = torch.randn(6, 4)
    several = {
        "own": in_memory("own", tied=False, embed_out__weight=head, lm_head__weight=head),
        "tied": in_memory("tied", tied=True),
    }
    assert list(with_heads(several)["tied"].tensors) == ["lm_head.weight", EMBEDDING]


def test_models_of_one_kind_stay_as_they_are():
    head = torch.randn(6, 4)
    for several in (
        {"a": in_memory("a", tied=True), "b": in_memory("b", tied=True, lm_head__weight=head)},
        {"a": in_memory("a", tied=False, lm_head__weight=head)},
        {"a": in_memory("a", tied=True), "b": in_memory("b", tied=False, lm_head__bias=head[:, 0])},
    ):
        found = with_heads(several)
        assert all(found[name] is one for name, one in several.items())


def test_tied_and_untied_checkpoints_are_one_family(qwen2_family, tmp_path):
    untied = AutoModelForCausalLM.from_pretrained(qwen2_family.base)
    untied.config.tie_word_embeddings = False
    untied.lm_head.weight = torch.nn.Parameter(untied.lm_head.weight.detach() + 1)
    untied.save_pretrained(tmp_path / "untied")
    opened = {name: open_checkpoint(name) for name in (qwen2_family.base, str(tmp_path / "untied"))}
    base, expert = with_heads(opened).values()
    check_family(base, [expert])
    assert torch.equal(base.tensor("lm_head.weight") + 1, expert.tensor("lm_head.weight"))


SMALL = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
CONFIGS = {
    "llama": LlamaConfig(vocab_size=24, intermediate_size=24, tie_word_embeddings=False, **SMALL),
    "qwen2, tied": Qwen2Config(vocab_size=24, num_key_value_heads=2, **SMALL),
    "gpt2, as many positions": GPT2Config(
        vocab_size=24, n_positions=24, n_embd=8, n_layer=1, n_head=2
    ),
    "gpt_neox": GPTNeoXConfig(vocab_size=24, intermediate_size=24, **SMALL),
    "opt, as many positions": OPTConfig(
        vocab_size=24, max_position_embeddings=22, ffn_dim=24, word_embed_proj_dim=8, **SMALL
    ),  # it adds 2
    "phi, a bias": PhiConfig(vocab_size=24, intermediate_size=24, **SMALL),
    "falcon": FalconConfig(vocab_size=24, **SMALL),
}


def shapes_of(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(one.shape) for name, one in model.named_parameters()}  # tied ones once


@pytest.mark.parametrize("name", CONFIGS)
def test_they_are_those_that_transformers_uses(name):
    config = CONFIGS[name]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    names = {one: name for name, one in model.named_parameters()}
    found = VocabularyTensors.of(config, shapes_of(model))
    assert found.embedding == names[model.get_input_embeddings().weight]
    head = (
        {}
        if is_tied(config)
        else {names[one] for one in model.get_output_embeddings().parameters()}
    )
    assert set(found.heads) == set(head)
    assert found.names == (found.embedding, *found.heads)


def test_what_cannot_be_told_is_not_guessed():
    config = LlamaConfig(vocab_size=24)
    two = {"model.embed_tokens.weight": (24, 8), "model.embed_more.weight": (24, 8)}
    assert VocabularyTensors.of(config, two) == VocabularyTensors(None, ())
    other_rows = {"model.embed_tokens.weight": (23, 8), "lm_head.weight": (24, 8)}
    found = VocabularyTensors.of(config, other_rows)
    assert (found.embedding, found.names) == (None, ("lm_head.weight",))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("lm_head.weight", True),
        ("lm_head.bias", True),
        ("embed_out.weight", True),
        ("model.layers.0.attention.output.weight", False),
        ("model.embed_tokens.weight", False),
        ("model.overhead.weight", False),
    ],
)
def test_heads_are_told_from_what_sounds_like_one(name, wanted):
    assert is_head(name) is wanted


def test_configs_are_changed_in_copies():
    tied = LlamaConfig(vocab_size=24, tie_word_embeddings=True)
    assert is_tied(tied)
    assert not is_tied(untied_config(tied))
    assert resized_config(tied, 24) is tied
    assert resized_config(tied, 30).vocab_size == 30
    assert (tied.vocab_size, is_tied(tied)) == (24, True)
