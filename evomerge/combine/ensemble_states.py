"""What the router of a saved ensemble reads: the base's hidden states of prompts.

A copy of this file lies in every saved ensemble, beside `modeling_ensemble.py`: it needs torch and
transformers, nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def mean_states(
    base: PreTrainedModel, prompts: Sequence[Sequence[int]], layer: int, batch_tokens: int = 2048
) -> Tensor:
    """Return the mean hidden state of each prompt in a layer, `[n, d]`, float32, padding left out."""
    most = getattr(base.config.get_text_config(), "max_position_embeddings", None)
    rows = [list(prompt)[-most:] if most else list(prompt) for prompt in prompts]
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
    found: dict[int, Tensor] = {}
    while order:
        width = len(rows[order[-1]])
        places = order[-max(1, batch_tokens // width) :]
        del order[-len(places) :]
        lengths = torch.tensor([len(rows[place]) for place in places])
        tokens = torch.tensor([rows[n] + [0] * (width - len(rows[n])) for n in places])
        seen = torch.arange(width) < lengths[:, None]
        read = states(base, tokens.to(base.device), seen.long().to(base.device), layer)
        sums = (read.float().cpu() * seen[:, :, None]).sum(dim=1)
        found |= zip(places, sums / lengths[:, None], strict=True)
    return torch.stack([found[place] for place in range(len(rows))])


class _Read(Exception):  # noqa: N818 - it ends a pass
    """The states that were wanted."""

    def __init__(self, states: Tensor) -> None:
        super().__init__()
        self.states = states


def states(base: PreTrainedModel, tokens: Tensor, mask: Tensor, layer: int) -> Tensor:
    """Return the hidden states of a layer, `[B, L, d]`; no layer behind it is computed."""
    count, body = base.config.get_text_config().num_hidden_layers, base.base_model
    decoder = getattr(body, "get_decoder", None)  # a tower of as many layers is not meant
    part: nn.Module = decoder() if callable(decoder) else body
    lists = [one for one in part.modules() if isinstance(one, nn.ModuleList) and len(one) == count]
    asked = {"input_ids": tokens, "attention_mask": mask, "use_cache": False}
    if layer == count or not lists:
        found: Tensor = body(**asked, output_hidden_states=True).hidden_states[layer]
        return found
    thread = threading.get_ident()  # others may generate with the same model

    def stop(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        if threading.get_ident() == thread:
            raise _Read(inputs[0] if inputs else named["hidden_states"])

    hook = lists[0][layer].register_forward_pre_hook(stop, with_kwargs=True)
    try:
        body(**asked)
    except _Read as read:
        return read.states
    finally:
        hook.remove()
    raise RuntimeError(f"layer {layer} of {type(body).__name__} was not run")
