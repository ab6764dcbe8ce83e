"""LoRA adapters (PEFT folders) as experts: the model's weights plus scale · B A, tensor by tensor.

What `PeftModel.merge_and_unload` does, without loading the model; in float32, rounded nowhere.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from evomerge.errors import ModelError

PREFIX = "base_model.model."
FACTOR = re.compile(r"^(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<factor>[AB])(\.weight)?$")
REFUSED = {
    "use_dora": "DoRA",
    "use_qalora": "QALoRA",
    "layer_replication": "layer replication",
    "alora_invocation_tokens": "activated LoRA",
    "use_bdlora": "BD-LoRA",
    "arrow_config": "Arrow",
    "lora_bias": "a LoRA bias",
}


@dataclass(frozen=True)
class Pair:
    """The two factors of one tensor's update, `scale · B A`.

    Attributes:
        a: `[rank, in]`; of an embedding `[rank, tokens]`.
        b: `[out, rank]`; of an embedding `[hidden, rank]`.
        scale: alpha / rank, or alpha / sqrt(rank) with rslora.
        transposed: The weight is stored `[in, out]` (Conv1D) or is an embedding.
    """

    a: torch.Tensor
    b: torch.Tensor
    scale: float
    transposed: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Of the weight that the pair is added to."""
        out, inner = self.b.shape[0], self.a.shape[1]
        return (inner, out) if self.transposed else (out, inner)

    def delta(self) -> torch.Tensor:
        """Return the update in float32, shaped as the weight is stored."""
        product = self.b.float() @ self.a.float()
        return (product.T if self.transposed else product) * self.scale


@dataclass(frozen=True)
class Adapter:
    """What an adapter does to a model's tensors.

    Attributes:
        folder: Where it was read from.
        pairs: Tensor → low-rank update.
        replaced: Tensor → trained in full (`modules_to_save`, trained biases, saved embeddings).
    """

    folder: Path
    pairs: Mapping[str, Pair]
    replaced: Mapping[str, torch.Tensor]

    @property
    def touched(self) -> frozenset[str]:
        """Names of the tensors that the adapter changes."""
        return frozenset(self.pairs) | frozenset(self.replaced)

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Check that every target is a tensor of the model, of the right shape.

        Raises:
            ModelError: It names the first that is not.
        """
        wanted = {name: pair.shape for name, pair in self.pairs.items()} | {
            name: tuple(tensor.shape) for name, tensor in self.replaced.items()
        }
        for name, shape in sorted(wanted.items()):
            if name not in shapes:
                raise ModelError(
                    f"adapts {name}, which the model has not; was it trained on another model?",
                    file=self.folder,
                )
            if shapes[name] != shape:
                raise ModelError(
                    f"adapts {name} of shape {list(shape)}, the model's is {list(shapes[name])}",
                    file=self.folder,
                )

    def applied(self, name: str, stored: torch.Tensor) -> torch.Tensor:
        """Return one tensor of the adapted model, in float32."""
        weight = self.replaced[name].float() if name in self.replaced else stored.float()
        return weight + self.pairs[name].delta() if name in self.pairs else weight


def open_adapter(folder: Path) -> Adapter:
    """Read a PEFT LoRA folder.

    Raises:
        ModelError: No adapter_config.json or adapter_model.safetensors, another kind than plain LoRA,
            a damaged file, or a tensor in it that is neither a factor nor a weight.
    """
    config = _config(folder)
    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():
        raise ModelError("no adapter_model.safetensors beside adapter_config.json", file=folder)
    try:
        stored = load_file(weights)
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"truncated or not a safetensors file ({error}); copy or download it again",
            file=weights,
        ) from None

    factors: dict[tuple[str, bool], dict[str, torch.Tensor]] = {}
    replaced: dict[str, torch.Tensor] = {}
    for key, tensor in stored.items():
        name = key.removeprefix(PREFIX)
        match = FACTOR.match(name)
        if match:
            key_of_pair = (match["module"], match["embedding"] is not None)
            factors.setdefault(key_of_pair, {})[match["factor"]] = tensor
        elif "lora_" in name:
            raise ModelError(f"holds {key}, which is no factor of a plain LoRA", file=weights)
        else:
            replaced[name.replace(".modules_to_save.", ".").replace(".base_layer.", ".")] = tensor
    pairs = {}
    for (module, embedding), pair in factors.items():
        if set(pair) != {"A", "B"}:
            raise ModelError(f"holds only one of the two factors of {module}", file=weights)
        pairs[f"{module}.weight"] = Pair(
            a=pair["A"],
            b=pair["B"],
            scale=_scale(config, module, rank=pair["A"].shape[0]),
            transposed=embedding or bool(config.get("fan_in_fan_out")),
        )
    return Adapter(folder, pairs, replaced)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "adapter_config.json"
    if not path.is_file():
        raise ModelError("no adapter_config.json; expected a PEFT LoRA folder", file=folder)
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"not valid JSON: {error}", file=path) from None
    if config.get("peft_type") != "LORA":
        raise ModelError(
            f"peft_type is {config.get('peft_type')}; only LORA adapters can be merged", file=path
        )
    for key, kind in REFUSED.items():
        if config.get(key):
            raise ModelError(
                f"{key}: {kind} is not supported; merge the adapter with PEFT first and name the "
                "result instead",
                file=path,
            )
    return config


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    alpha = float(_patterned(config.get("alpha_pattern"), module, config.get("lora_alpha", 8)))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _patterned(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:  # noqa: ANN401
    """PEFT's rule: the first pattern that matches the module's name, or the end of it."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default
