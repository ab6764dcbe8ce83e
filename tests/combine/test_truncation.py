from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from evomerge.combine.folder import is_plain
from evomerge.combine.truncation import linear_modules, truncated, write_adapter
from evomerge.errors import MergeError
from evomerge.merge.checkpoint import open_checkpoint
from tests.conftest import Family

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning:transformers", "ignore::UserWarning:peft"
)
FULL = 48
"""The largest rank that a layer of the family has."""


@pytest.fixture
def linear_expert(llama_family: Family, tmp_path: Path) -> Path:
    """An expert whose embeddings, norms and head are the base's."""
    model = AutoModelForCausalLM.from_pretrained(llama_family.experts[0])
    base = AutoModelForCausalLM.from_pretrained(llama_family.base).state_dict()
    linear = linear_modules(model.config)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.removesuffix(".weight") not in linear:
                tensor.copy_(base[name])
    model.save_pretrained(tmp_path / "expert")
    return tmp_path / "expert"


def test_at_full_rank_an_adapter_is_the_model(
    llama_family: Family, linear_expert: Path, tmp_path: Path
) -> None:
    base, expert = map(open_checkpoint, (llama_family.base, str(linear_expert)))
    made = write_adapter(base, expert, tmp_path / "adapter", rank=FULL)
    assert made.kept == pytest.approx(1.0, abs=1e-9)
    assert made.left == ()
    assert is_plain(tmp_path / "adapter")
    adapted = open_checkpoint(f"{llama_family.base}+{tmp_path / 'adapter'}")
    for name in base.tensors:
        torch.testing.assert_close(adapted.tensor(name), expert.tensor(name), rtol=0, atol=1e-5)
    loaded = AutoModelForCausalLM.from_pretrained(llama_family.base)
    peft = PeftModel.from_pretrained(loaded, tmp_path / "adapter")
    tokens = torch.tensor([[5, 9, 11, 3]])
    own = AutoModelForCausalLM.from_pretrained(linear_expert)
    torch.testing.assert_close(peft(tokens).logits, own(tokens).logits, rtol=0, atol=1e-5)


def test_what_an_adapter_cannot_hold_is_named(llama_family: Family, tmp_path: Path) -> None:
    base, expert = map(open_checkpoint, (llama_family.base, llama_family.experts[0]))
    made = write_adapter(base, expert, tmp_path / "adapter", rank=4)
    assert {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"} < {*made.left}
    assert len(made.left) == 3 + 2 * 4
    adapted = open_checkpoint(f"{llama_family.base}+{tmp_path / 'adapter'}")
    whole = near = 0.0
    for name in base.tensors:
        wanted, found = expert.tensor(name), adapted.tensor(name)
        whole += float((wanted - base.tensor(name)).square().sum())
        near += float((wanted - found).square().sum())
        if name in made.left:
            assert torch.equal(found, base.tensor(name))
        else:
            assert np.linalg.matrix_rank(found - base.tensor(name), tol=1e-4) == 4
    assert made.kept == pytest.approx(1 - near / whole, abs=1e-4)
    assert 0.1 < made.kept < 0.9


def test_no_other_product_of_the_rank_is_nearer() -> None:
    delta = torch.randn(6, 4, dtype=torch.float64)
    values = torch.linalg.svdvals(delta)
    for rank in (1, 3):
        a, b = truncated(delta, rank)
        assert (a.shape, b.shape) == ((rank, 4), (6, rank))
        lost = float((delta - b @ a).square().sum())
        assert lost == pytest.approx(float(values[rank:].square().sum()))


def test_layers_of_a_smaller_rank_are_filled_up(tmp_path: Path) -> None:
    delta = torch.randn(3, 5)
    a, b = truncated(delta, 8)
    assert (a.shape, b.shape) == ((8, 5), (3, 8))
    torch.testing.assert_close(b @ a, delta)
    assert not a[3:].any()
    assert not b[:, 3:].any()


def test_layers_that_are_the_bases_are_left_out(
    llama_family: Family, linear_expert: Path, tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(llama_family.base)
    trained = AutoModelForCausalLM.from_pretrained(linear_expert).state_dict()
    with torch.no_grad():
        name = "model.layers.1.self_attn.q_proj.weight"
        model.get_parameter(name).copy_(trained[name])
    model.save_pretrained(tmp_path / "one")
    base = open_checkpoint(llama_family.base)
    write_adapter(base, open_checkpoint(str(tmp_path / "one")), tmp_path / "adapter", rank=2)
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {key.split(".self_attn.")[1] for key in stored} == {
        *("q_proj.lora_A.weight", "q_proj.lora_B.weight")
    }
    moved = {key for key, tensor in stored.items() if tensor.any()}
    assert moved == {key for key in stored if ".layers.1." in key}


def test_a_model_that_needs_no_adapter_is_refused(llama_family: Family, tmp_path: Path) -> None:
    base = open_checkpoint(llama_family.base)
    with pytest.raises(MergeError, match="no adapter is needed"):
        write_adapter(base, base, tmp_path / "adapter", rank=4)
    assert not (tmp_path / "adapter").exists()
