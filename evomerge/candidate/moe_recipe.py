"""mergekit-moe's recipe as a frozen value: a mixture of experts, by models, prompts and gates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from evomerge.candidate.gates import Gates

GateMode = Literal["hidden", "hidden_avg", "hidden_last", "cheap_embed", "random", "uniform_random"]
WITHOUT_PROMPTS: tuple[GateMode, ...] = ("random", "uniform_random")
Architecture = Literal["mixtral", "qwen", "qwen3"]


@dataclass(frozen=True)
class MoeExpert:
    """Where one expert's feed-forward blocks come from, and what is routed to it.

    Attributes:
        source_model: A model; or the name of a merge, where the mixture is made of merges.
        positive_prompts: Texts like those that it answers.
        negative_prompts: Texts like those that others answer.
        residual_scale: What its last projection is multiplied by.
    """

    source_model: str
    positive_prompts: tuple[str, ...] = ()
    negative_prompts: tuple[str, ...] = ()
    residual_scale: float = 1.0


@dataclass(frozen=True)
class MoeRecipe:
    """One mixture of experts, as mergekit 0.1.5's `mergekit-moe` describes it, and how its gates come to be.

    Attributes:
        base_model: What everything but the feed-forward blocks comes from, as `source_model` is named.
        experts: In the order of the gates' rows.
        shared_expert: What every token passes through besides; None: nothing.
        gate_mode: How gates come from the prompts.
        dtype: Of the result; None: the base's own.
        experts_per_token: How many experts a token passes through.
        architecture: Of the result; None: the first that fits the models.
        gates: The gates; None: they are computed as `gate_mode` says. A key of ours: their file.
        seed: Of random gates. A key of ours.
    """

    base_model: str
    experts: tuple[MoeExpert, ...]
    shared_expert: MoeExpert | None = None
    gate_mode: GateMode = "hidden"
    dtype: str | None = None
    experts_per_token: int = 2
    architecture: Architecture | None = None
    gates: Gates | None = None
    seed: int = 0

    @property
    def all_experts(self) -> tuple[MoeExpert, ...]:
        """The experts, and the shared one behind them."""
        return self.experts if self.shared_expert is None else (*self.experts, self.shared_expert)

    def model_names(self) -> tuple[str, ...]:
        """Return every model and merge that it names, the base first, each once."""
        sources = (expert.source_model for expert in self.all_experts)
        return tuple(dict.fromkeys((self.base_model, *sources)))
