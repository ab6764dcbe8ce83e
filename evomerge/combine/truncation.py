"""A fine-tuned model as a LoRA adapter of its base: the best approximation of its task vector by a low rank.

Of each linear layer's task vector the singular vectors of the largest singular values are kept (Eckart and
Young 1936; `mergekit-extract-lora` does the same). Embeddings, norms, biases and the output head stay the
base's: adapters that every server takes do not hold them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PretrainedConfig

from evomerge.errors import MergeError, ModelError
from evomerge.merge.adapter_file import PREFIX
from evomerge.merge.checkpoint import Checkpoint


@dataclass(frozen=True)
class Truncated:
    """What an adapter has of a model.

    Attributes:
        folder: Of the adapter.
        kept: Share of the task vector's squared norm that it has, in [0, 1].
        left: Tensors that differ from the base's and that it cannot change.
    """

    folder: Path
    kept: float
    left: tuple[str, ...]


def write_adapter(
    base: Checkpoint, expert: Checkpoint, folder: Path, *, rank: int, device: str = "cpu"
) -> Truncated:
    """Write the adapter that makes of a base the model most like another one; PEFT loads it.

    Args:
        base: What it is for.
        expert: What it is to be like, of the same architecture and vocabulary.
        folder: Where, a new folder.
        rank: Of the updates; layers of a smaller one are filled up with zeros.
        device: Where singular values are computed.

    Raises:
        ModelError: The architecture has no linear layers that an adapter could change, or a tensor is not
            finite.
        MergeError: Nothing that an adapter could change differs from the base.
    """
    modules = linear_modules(base.config)
    if not modules:
        raise ModelError(
            f"{base.config.model_type} has no linear layers besides its head, which a LoRA adapter changes",
            file=base.name,
        )
    whole = kept = 0.0
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    left = []
    for name in base.tensors:
        delta = _task_vector(base, expert, name, device)
        squared = float(delta.double().square().sum())
        whole += squared
        module = name.removesuffix(".weight")
        if module in modules and name != module:
            factors[module] = a, b = truncated(delta, rank)
            kept += squared - float((delta - b @ a).double().square().sum())
        elif squared:
            left.append(name)
    changed = {module.rpartition(".")[2] for module, (_, b) in factors.items() if b.any()}
    if not changed:
        raise MergeError(f"{expert.name} has the linear layers of the base: no adapter is needed")
    folder.mkdir(parents=True)
    tensors = {}
    for module, (a, b) in factors.items():
        if module.rpartition(".")[2] in changed:
            tensors[f"{PREFIX}{module}.lora_A.weight"] = a.cpu()
            tensors[f"{PREFIX}{module}.lora_B.weight"] = b.cpu()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=rank,
        target_modules=sorted(changed),
        base_model_name_or_path=base.name,
        inference_mode=True,
    ).save_pretrained(folder)
    return Truncated(folder, kept / whole, tuple(left))


def truncated(delta: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return factors `A` `[rank, in]` and `B` `[out, rank]`, float32, whose product is nearest to a matrix.

    Both have the same singular values; rows and columns beyond the matrix's own rank are 0.
    """
    left, values, right = torch.linalg.svd(delta, full_matrices=False)
    count = min(rank, len(values))
    roots = values[:count].sqrt()
    a, b = delta.new_zeros(rank, delta.shape[1]), delta.new_zeros(delta.shape[0], rank)
    a[:count], b[:, :count] = roots[:, None] * right[:count], left[:, :count] * roots
    return a, b


def linear_modules(config: PretrainedConfig) -> set[str]:
    """Return the names of a model's linear layers, its head apart."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    return {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }


def _task_vector(base: Checkpoint, expert: Checkpoint, name: str, device: str) -> Tensor:
    found = expert.tensor(name).to(device).float() - base.tensor(name).to(device).float()
    if not found.isfinite().all():
        raise ModelError(f"{name} is not finite, or not the base's", file=expert.name)
    return found
