"""Mixtures of experts, tensor by tensor: where each comes from, for the live module and the disk alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig

from evomerge.candidate.gates import Gates
from evomerge.candidate.moe_recipe import MoeRecipe
from evomerge.combine.counterparts import PROJECTIONS, Counterpart, counterpart_of
from evomerge.errors import ModelError, RecipeError
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.heads import USUAL_HEAD, resized_config
from evomerge.merge.layout import Layout
from evomerge.merge.names import model_names

_BLOCK = "mlp."
_DEEPSEEK = ("llama", "mistral")  # what mergekit makes DeepSeek MoEs of
_LAST = f"{_BLOCK}{PROJECTIONS[-1]}.weight"


@dataclass(frozen=True)
class Part:
    """Tensors of a mixture that come from one model, or from a merge as if it were one.

    Attributes:
        source: What recipes call it.
        names: Name in a checkpoint of the mixture → name in the model.
        scale: What the last projections of feed-forward blocks are multiplied by.
    """

    source: str
    names: Mapping[str, str]
    scale: float = 1.0

    def tensor(self, name: str, model: Checkpoint, dtype: torch.dtype | None) -> Tensor:
        """Return one tensor.

        Args:
            name: In the mixture.
            model: The open `source`.
            dtype: Of the result; None: the model's own.
        """
        stored = model.tensor(self.names[name])
        tensor = stored
        if self.scale != 1 and self.names[name].endswith(_LAST):
            tensor = stored.float() * self.scale
        return tensor.to(dtype or stored.dtype)


@dataclass(frozen=True)
class Assembly:
    """A mixture: its class, and where its tensors come from.

    Attributes:
        recipe: What it is.
        counterpart: Its class.
        config: Its configuration.
        parts: Everything but the feed-forward blocks; those of each expert; those of a shared expert.
        layers: How many layers there are.
        dense: The models' architecture: value of `model_type`.
    """

    recipe: MoeRecipe
    counterpart: Counterpart
    config: PretrainedConfig
    parts: tuple[Part, ...]
    layers: int
    dense: str

    @classmethod
    def of(cls, recipe: MoeRecipe, base: Checkpoint) -> Assembly:
        """Assemble a mixture over models of one family.

        Args:
            recipe: What it is.
            base: Its base model, open.

        Raises:
            RecipeError: A token wants more experts than there are.
            ModelError: There is no mixture class for the models' architecture.
        """
        count, shared = len(recipe.experts), recipe.shared_expert
        if not 1 <= recipe.experts_per_token <= count:
            raise RecipeError(
                f"found {recipe.experts_per_token}, expected 1 to {count}, as many as there are experts",
                field="experts_per_token",
            )
        has_shared = shared is not None
        found = counterpart_of(base.config, base.name, shared=has_shared, name=recipe.architecture)
        layout = Layout.of(base)
        dense = resized_config(base.config, base.rows or base.config.vocab_size)
        config = found.configured(dense, count, recipe.experts_per_token, shared=has_shared)
        rest = _rest(base, layout)
        _check_blocks(base, layout)
        _check_places(base, rest, config)
        parts = [Part(recipe.base_model, rest)]
        for number, expert in enumerate(recipe.experts):
            names = _block(layout, partial(found.expert, number))
            parts.append(Part(expert.source_model, names, expert.residual_scale))
        if shared is not None:
            names = _block(layout, found.shared_expert)
            parts.append(Part(shared.source_model, names, shared.residual_scale))
        kind = base.config.model_type
        return cls(recipe, found, config, tuple(parts), layout.num_layers, kind)

    def added(self, gates: Gates, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
        """Give what comes from no model: gates, and a shared expert that adds nothing.

        Args:
            gates: Of every layer.
            dtype: Of the result.

        Raises:
            RecipeError: They are of another number of experts, layers or dimensions.
        """
        count, hidden = len(self.recipe.experts), self.config.hidden_size
        for layer in range(self.layers):
            gate = _gate(gates.layer(layer), (count, hidden), layer)
            yield self.counterpart.gate(layer), gate.to(dtype)
            if not self.counterpart.shared:
                continue
            own = gates.shared(layer)
            gate = torch.zeros(1, hidden) if own is None else _gate(own, (1, hidden), layer)
            yield self.counterpart.shared_gate(layer), gate.to(dtype)
            if self.recipe.shared_expert is None:
                width = self.config.shared_expert_intermediate_size
                for name in PROJECTIONS:
                    shape = (hidden, width) if name == PROJECTIONS[-1] else (width, hidden)
                    empty = torch.zeros(shape, dtype=dtype)
                    yield self.counterpart.shared_expert(layer, name), empty

    def check_same_class(self) -> None:
        """Check that mergekit makes a mixture of the same class of the recipe, where it has no gates.

        mergekit takes the first of its classes that fits: for Llama and Mistral with a shared expert without
        prompts that is DeepSeek's, where a shared expert has no gate. Gates are ours alone, so a recipe with
        them says what is meant.

        Raises:
            RecipeError: It makes a DeepSeek MoE of it.
        """
        recipe, shared = self.recipe, self.recipe.shared_expert
        if shared is None or recipe.architecture is not None or recipe.gates is not None:
            return
        has_prompts = shared.positive_prompts or shared.negative_prompts
        if self.dense in _DEEPSEEK and not has_prompts:
            raise RecipeError(
                "has no prompts, and mergekit makes a DeepSeek MoE of this, which is not built here; write "
                "architecture: qwen, or positive_prompts",
                field="shared_experts.0",
            )

    def no_gates(self) -> Gates:
        """Return gates that tell no expert from another."""
        zero = torch.zeros(len(self.recipe.experts), self.config.hidden_size).numpy()
        return Gates.of(dict.fromkeys(range(self.layers), zero))


def _rest(base: Checkpoint, layout: Layout) -> dict[str, str]:
    """Everything but the feed-forward blocks; a tied output head becomes one of its own."""
    names = [*layout.first, *layout.last]
    for layer, suffixes in enumerate(layout.layers):
        names += [layout.name(layer, one) for one in suffixes if not one.startswith(_BLOCK)]
    found = {name: name for name in names}
    embedding = base.vocabulary_tensors.embedding
    if USUAL_HEAD not in found and embedding is not None:
        found[USUAL_HEAD] = embedding
    return found


def _block(layout: Layout, name: Any) -> dict[str, str]:  # noqa: ANN401 - (layer, projection) → name
    return {
        name(layer, projection): layout.name(layer, f"{_BLOCK}{projection}.weight")
        for layer in range(layout.num_layers)
        for projection in PROJECTIONS
    }


def _gate(found: Any, shape: tuple[int, int], layer: int) -> Tensor:  # noqa: ANN401 - of NumPy
    if found is None or found.shape != shape:
        what = "none" if found is None else str(list(found.shape))
        raise RecipeError(
            f"found {what} as a gate of layer {layer}, expected {list(shape)}", field="gates"
        )
    return torch.from_numpy(found)


def _check_blocks(base: Checkpoint, layout: Layout) -> None:
    usual = {f"{_BLOCK}{name}.weight" for name in PROJECTIONS}
    for layer, suffixes in enumerate(layout.layers):
        odd = sorted({one for one in suffixes if one.startswith(_BLOCK)} ^ usual)
        if odd:
            raise ModelError(
                f"layer {layer} {'has' if odd[0] in suffixes else 'lacks'} {odd[0]}; a mixture needs "
                f"feed-forward blocks of {', '.join(PROJECTIONS)} without biases",
                file=base.name,
            )


def _check_places(base: Checkpoint, rest: Iterable[str], config: PretrainedConfig) -> None:
    """Check that the mixture's class has a place for all that is no feed-forward block, and no other."""
    names = model_names(config, trust_remote_code=False)
    assert names is not None  # the class is transformers' own
    places = {name for name in names.state if f".{_BLOCK}" not in name}
    odd = sorted(places.symmetric_difference(rest))
    if odd:
        verb, other = ("lacks", "has") if odd[0] in places else ("has", "lacks")
        raise ModelError(
            f"{verb} {odd[0]}, which {config.architectures[0]} {other}; such models have no mixture",
            file=base.name,
        )
