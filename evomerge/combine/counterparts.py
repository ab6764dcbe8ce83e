"""Which class of mixtures the models of an architecture become: configuration, and names as on the Hub.

Models keep their attention and norms; only the feed-forward blocks, of three projections without biases,
become experts. So a counterpart must have a place for every other tensor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    MixtralConfig,
    PretrainedConfig,
    Qwen2MoeConfig,
    Qwen3MoeConfig,
)

from evomerge.errors import ModelError

PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
"""Of a feed-forward block; the last one's output is the block's."""
LEAST_SHARED = 64
"""Width of a shared expert that stands there because its class wants one, and adds 0."""


@dataclass(frozen=True)
class Counterpart:
    """A class of mixtures.

    Attributes:
        name: What `mergekit-moe` calls it, in small letters.
        config: Its configuration's class.
        architecture: Its model's class.
        block: Name of a layer's block in a checkpoint, behind the layer's number.
        projections: A dense block's projection → the name of an expert's.
        dense: Which architectures have their mixtures in it: value of `model_type`.
        shared: Whether it has a shared expert.
    """

    name: str
    config: type[PretrainedConfig]
    architecture: str
    block: str
    projections: Mapping[str, str]
    dense: tuple[str, ...]
    shared: bool = False

    def gate(self, layer: int) -> str:
        """Return the name of a layer's gate."""
        return f"model.layers.{layer}.{self.block}.gate.weight"

    def expert(self, expert: int, layer: int, projection: str) -> str:
        """Return the name of an expert's projection."""
        name = self.projections[projection]
        return f"model.layers.{layer}.{self.block}.experts.{expert}.{name}.weight"

    def shared_expert(self, layer: int, projection: str) -> str:
        """Return the name of the shared expert's projection."""
        return f"model.layers.{layer}.{self.block}.shared_expert.{projection}.weight"

    def shared_gate(self, layer: int) -> str:
        """Return the name of the shared expert's gate."""
        return f"model.layers.{layer}.{self.block}.shared_expert_gate.weight"

    def configured(
        self, dense: PretrainedConfig, experts: int, top_k: int, *, shared: bool
    ) -> PretrainedConfig:
        """Return the configuration of mixtures of models with the configuration `dense`.

        Args:
            dense: Of the models; a tied output head becomes one of its own.
            experts: How many there are.
            top_k: How many a token passes through.
            shared: Whether the shared expert adds something.
        """
        known = {one.name for one in dataclasses.fields(self.config)}
        kept = {name: value for name, value in dense.to_dict().items() if name in known}
        own = {
            "architectures": [self.architecture],
            "tie_word_embeddings": False,
            "num_experts_per_tok": top_k,
            "head_dim": getattr(dense, "head_dim", None)
            or dense.hidden_size // dense.num_attention_heads,
            "dtype": dense.dtype,
        }
        if self.config is MixtralConfig:
            own["num_local_experts"] = experts
        else:
            own |= {
                "num_experts": experts,
                "moe_intermediate_size": dense.intermediate_size,
                "norm_topk_prob": True,
                "decoder_sparse_step": 1,
                "mlp_only_layers": [],
            }
        if self.shared:
            width = dense.intermediate_size if shared else LEAST_SHARED
            own |= {
                "shared_expert_intermediate_size": width,
                "qkv_bias": dense.model_type == "qwen2",
            }
        return self.config(**{**kept, **own})


_W = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}
_PLAIN = {name: name for name in PROJECTIONS}
COUNTERPARTS = (
    Counterpart(
        "mixtral",
        MixtralConfig,
        "MixtralForCausalLM",
        "block_sparse_moe",
        _W,
        ("llama", "mistral"),
    ),
    Counterpart("qwen3", Qwen3MoeConfig, "Qwen3MoeForCausalLM", "mlp", _PLAIN, ("qwen3",)),
    Counterpart(
        "qwen",
        Qwen2MoeConfig,
        "Qwen2MoeForCausalLM",
        "mlp",
        _PLAIN,
        ("qwen2", "llama", "mistral"),
        shared=True,
    ),
)


def counterpart_of(
    config: PretrainedConfig, model: str, *, shared: bool, name: str | None = None
) -> Counterpart:
    """Return the class of mixtures for models of an architecture.

    Args:
        config: Of the models.
        model: One of them, for messages.
        shared: Whether a shared expert is wanted.
        name: Of the class; None: the first that fits.

    Raises:
        ModelError: There is none, or it cannot do what the models do.
    """
    dense = config.model_type
    fitting = [one for one in COUNTERPARTS if dense in one.dense]
    if not fitting:
        known = ", ".join(sorted({each for one in COUNTERPARTS for each in one.dense}))
        raise ModelError(
            f"is a {dense} model, which has no mixture class; expected one of {known}",
            file=model,
        )
    named = [one for one in fitting if name in (None, one.name)]
    chosen = [one for one in named if one.shared or not shared]
    if not chosen:
        has_none = shared and not any(one.shared for one in fitting)
        what = "mixtures with a shared expert" if has_none or named else f"{name} mixtures"
        raise ModelError(f"is a {dense} model, of which there are no {what}", file=model)
    _check_settings(config, chosen[0], model)
    return chosen[0]


def _check_settings(config: PretrainedConfig, found: Counterpart, model: str) -> None:
    windowed = found.config is not MixtralConfig and (
        getattr(config, "use_sliding_window", False)
        or (config.model_type == "mistral" and config.sliding_window)
    )
    faults = {
        "mlp_bias": getattr(config, "mlp_bias", False),
        "use_sliding_window": windowed,
        "attention_bias": getattr(config, "attention_bias", False)
        and found.config is not Qwen3MoeConfig,
    }
    for setting, is_on in faults.items():
        if is_on:
            raise ModelError(
                f"its config has {setting}, for which {found.architecture} has no place; such models have "
                "no mixture",
                file=model,
            )


def views(module: torch.nn.Module, found: Counterpart) -> dict[str, torch.Tensor]:
    """Return the tensors of a mixture's module by the names that they have in a checkpoint.

    Args:
        module: Whose experts are fused as transformers 5 has them: `gate_up_proj` `[experts, 2 · width,
            hidden]`, `down_proj` `[experts, hidden, width]`.
        found: Its class.
    """
    named: dict[str, Any] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        data = tensor.detach()
        prefix, _, what = name.partition(".mlp.")
        layer = int(prefix.rsplit(".", 1)[1]) if what else -1
        if what == "experts.gate_up_proj":
            for expert, rows in enumerate(data):
                gate, up = rows.chunk(2)
                named[found.expert(expert, layer, "gate_proj")] = gate
                named[found.expert(expert, layer, "up_proj")] = up
        elif what == "experts.down_proj":
            for expert, rows in enumerate(data):
                named[found.expert(expert, layer, "down_proj")] = rows
        elif what == "gate.weight":
            named[found.gate(layer)] = data
        else:
            named[name] = data
    return named
