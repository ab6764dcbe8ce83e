"""Task vectors two by two, against NumPy in float64 over the files themselves."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from peft import LoraConfig, get_peft_model
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

from evomerge.merge import task_vectors as module
from evomerge.merge.checkpoint import open_checkpoint
from evomerge.merge.task_vectors import task_vectors
from tests.conftest import Family


def part_of(name: str) -> str:
    if ".layers." in name:
        return f"layer {name.split('.layers.')[1].split('.')[0]}"
    return "embeddings" if "embed" in name else "final norm and head"


def reference(models: list[dict[str, np.ndarray]], wanted: str) -> list[np.ndarray]:
    base, *experts = models
    names = [name for name in base if wanted in ("all", part_of(name))]
    return [
        np.concatenate(
            [(one[n].astype(np.float64) - base[n].astype(np.float64)).ravel() for n in names]
        )
        for one in experts
    ]


@pytest.mark.parametrize("block", [7, 1 << 18])
def test_they_are_those_of_float64(block, llama_family: Family, monkeypatch) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    opened = [open_checkpoint(name) for name in llama_family.models]
    files = [load_file(Path(name) / "model.safetensors") for name in llama_family.models]
    found = task_vectors(opened[0], opened[1:])
    assert [one.part for one in found] == [
        "embeddings", "layer 0", "layer 1", "layer 2", "layer 3", "final norm and head", "all"
    ]  # fmt: skip
    for one in found:
        vectors = reference(files, one.part)
        assert one.norms == pytest.approx([np.linalg.norm(each) for each in vectors], rel=1e-6)
        for i, j in combinations(range(3), 2):
            a, b = vectors[i], vectors[j]
            cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            both = (a != 0) & (b != 0)
            assert one.cosines[i][j] == one.cosines[j][i] == pytest.approx(cosine, abs=1e-6)
            opposed = (np.sign(a) != np.sign(b))[both].mean()
            assert one.opposed[i][j] == pytest.approx(opposed, abs=1e-4)
        assert [one.cosines[i][i] for i in range(3)] == pytest.approx([1.0] * 3)
        assert [one.opposed[i][i] for i in range(3)] == [0.0] * 3


@pytest.mark.filterwarnings("ignore::UserWarning:peft", "ignore::FutureWarning:transformers")
def test_an_adapter_has_a_task_vector_where_it_adapts(llama_family: Family, tmp_path: Path) -> None:
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"])
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(llama_family.base), config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.1 * np.pi)
    model.save_pretrained(tmp_path / "lora")
    merged = {n: t.numpy() for n, t in model.merge_and_unload().state_dict().items()}
    base, expert = (open_checkpoint(name) for name in llama_family.models[:2])
    lora = open_checkpoint(f"{llama_family.base}+{tmp_path / 'lora'}")
    found = {one.part: one for one in task_vectors(base, [lora, expert])}
    files = [load_file(Path(name) / "model.safetensors") for name in llama_family.models[:2]]
    vectors = reference([files[0], merged, files[1]], "layer 2")
    cosine = vectors[0] @ vectors[1] / np.linalg.norm(vectors[0]) / np.linalg.norm(vectors[1])
    assert found["layer 2"].norms[0] == pytest.approx(np.linalg.norm(vectors[0]), rel=1e-5)
    assert found["layer 2"].cosines[0][1] == pytest.approx(cosine, abs=1e-5)
    assert found["embeddings"].norms[0] == 0
    assert found["embeddings"].cosines[0][1] is None
    assert found["embeddings"].opposed[0][1] is None


def test_what_is_left_out_counts_nowhere(llama_family: Family) -> None:
    base, *experts = (open_checkpoint(name) for name in llama_family.models)
    rows = base.vocabulary_tensors
    found = task_vectors(base, experts, (rows.embedding, *rows.heads))
    assert "embeddings" not in {one.part for one in found}
    assert found[-1].norms[0] < task_vectors(base, experts)[-1].norms[0]
