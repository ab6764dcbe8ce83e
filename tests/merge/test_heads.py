"""One kind of output head in a family: of small checkpoints in memory, and of models that load."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from evomerge.merge.checkpoint import Checkpoint, open_checkpoint
from evomerge.merge.family import check_family
from evomerge.merge.files import TensorHeader
from evomerge.merge.heads import with_heads

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
