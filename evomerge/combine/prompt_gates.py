"""Gates from prompts, by the modes of mergekit-moe, which knows what each expert is for and no scores.

As its guide says, without two defects of mergekit 0.1.5: states are those that the router reads, behind the
norm that follows attention (it takes the blocks' inputs), and no padding is among them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from evomerge.candidate import Merge, Recipe
from evomerge.candidate.gates import Gates
from evomerge.candidate.moe_recipe import MoeRecipe
from evomerge.candidate.tables import Array
from evomerge.merge.live import LiveModel
from evomerge.merge.models import OpenModels

_SMALLEST = 1e-8  # norm of a vector that is divided by its norm (mergekit)
States = Callable[[str], Tensor]  # prompt → `[layers, hidden]`


def prompt_gates(
    recipe: MoeRecipe,
    merges: Mapping[str, Recipe],
    models: OpenModels,
    *,
    device: torch.device | str = "cpu",
    allow_pickle: bool = False,
) -> Gates:
    """Compute the gates of a recipe as its `gate_mode` says.

    Args:
        recipe: The mixture.
        merges: Name → merge that it names as a model.
        models: What it is made of, open.
        device: Where states are computed.
        allow_pickle: Accept PyTorch pickles, as when `models` were opened.

    Raises:
        ModelError: The base has no tokenizer.
    """
    config = models.base.config
    layers, hidden = config.num_hidden_layers, config.hidden_size
    wanted = recipe.all_experts
    if recipe.gate_mode in ("random", "uniform_random"):
        found = _random(recipe, (layers, len(wanted), hidden))
    else:
        unit = recipe.gate_mode == "cheap_embed"
        states = _states(recipe, merges, models, device, allow_pickle=allow_pickle)
        vectors = [
            _direction(states, one.positive_prompts, one.negative_prompts, unit=unit)
            for one in wanted
        ]
        found = torch.stack(vectors, dim=1)
    count = len(recipe.experts)
    shared = found[:, count:] if recipe.shared_expert is not None else None
    return Gates.of(_by_layer(found[:, :count]), None if shared is None else _by_layer(shared))


def _by_layer(gates: Tensor) -> dict[int, Array]:
    return {layer: gate.contiguous().numpy() for layer, gate in enumerate(gates)}


def _random(recipe: MoeRecipe, shape: tuple[int, int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(recipe.seed)
    if recipe.gate_mode == "random":
        return torch.randn(shape, generator=generator)
    bound = math.sqrt(1 / shape[-1])
    return (torch.rand(shape, generator=generator) * 2 - 1) * bound


def _direction(
    states: States, positive: Sequence[str], negative: Sequence[str], *, unit: bool
) -> Tensor:
    """Return where positive prompts lie, away from negative ones; float32 `[layers, hidden]`, length 1.

    `unit`: whether both count as much, however long their sums are, as mergekit has it for embeddings.
    """
    found = _mean(states, positive, unit=unit)
    return _unit(found - _mean(states, negative, unit=unit) if negative else found)


def _mean(states: States, prompts: Sequence[str], *, unit: bool) -> Tensor:
    found = torch.stack([states(prompt) for prompt in prompts]).mean(0)
    return _unit(found) if unit else found


def _unit(vectors: Tensor) -> Tensor:
    found: Tensor = vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=_SMALLEST)
    return found


def _states(
    recipe: MoeRecipe,
    merges: Mapping[str, Recipe],
    models: OpenModels,
    device: torch.device | str,
    *,
    allow_pickle: bool,
) -> States:
    base, tokenizer = recipe.base_model, models.tokenizer
    if recipe.gate_mode == "cheap_embed" and base not in merges:
        name = models.base.vocabulary_tensors.embedding
        assert name is not None  # such models have one
        table = models.base.tensor(name).float()
        layers = models.base.config.num_hidden_layers
        return lambda prompt: table[_tokens(tokenizer, prompt)].sum(0).expand(layers, -1)
    source = merges.get(base) or Merge("passthrough", (base,))
    live = LiveModel(
        source.model_names(),
        dtype="float32",
        device=device,
        trust_remote_code=models.trust_remote_code,
        allow_pickle=allow_pickle,
        resident_bytes=0,
    )
    live.write(source)
    module = live.module
    if recipe.gate_mode == "cheap_embed":
        table = module.get_input_embeddings().weight.cpu()
        layers = len(module.model.layers)
        return lambda prompt: table[_tokens(tokenizer, prompt)].sum(0).expand(layers, -1)
    average = recipe.gate_mode == "hidden_avg"
    return lambda prompt: _read(module, _tokens(tokenizer, prompt), average=average)


def _tokens(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    text = (tokenizer.bos_token or "") + prompt
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


@torch.no_grad()
def _read(module: nn.Module, tokens: list[int], *, average: bool) -> Tensor:
    """Return what each layer's feed-forward block reads of one prompt, `[layers, hidden]`."""
    read: list[Tensor] = []
    layers = module.get_submodule("model.layers").children()
    handles = [
        layer.get_submodule("mlp").register_forward_pre_hook(
            lambda _, inputs: read.append(inputs[0][0].float().cpu())
        )
        for layer in layers
    ]
    try:
        module(input_ids=torch.tensor([tokens], device=next(module.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack([each.mean(0) if average else each[-1] for each in read])
