"""LoRA training on answers: batches, loss, and one short schedule."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from items import Item, Render
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Schedule:
    """How a LoRA adapter is trained: AdamW, linear warm-up (a tenth) and linear decay to zero."""

    steps: int
    batch: int = 8
    rank: int = 16
    rate: float = 2e-3
    seed: int = 0


@dataclass(frozen=True)
class Encoded:
    """Token ids of one item: prompt, answer, end token; the first `prompt` of them are prompt."""

    ids: list[int]
    prompt: int


@dataclass(frozen=True)
class Batch:
    """Items as one prefix tree of tokens: what several items begin with is computed once.

    Items of a job share their system message, a third of their tokens. Every token sees the tokens
    on its way to the root, so losses and gradients are those of the items one by one.

    Attributes:
        ids: [1, tokens], int64.
        positions: [1, tokens], int64: depths in the tree.
        sees: [1, 1, tokens, tokens], bool: a token's ancestors, itself included.
        predicts: [answer tokens], int64: index of the token before each answer token.
        targets: [answer tokens], int64: ids of the answer tokens, item after item.
    """

    ids: Tensor
    positions: Tensor
    sees: Tensor
    predicts: Tensor
    targets: Tensor


def encode(tokenizer: Any, render: Render, items: Sequence[Item]) -> list[Encoded]:
    """Token ids of prompt and answer, tokenised apart as at generation, then the end token."""
    encoded = []
    for item in items:
        prompt = tokenizer(render(item.messages), add_special_tokens=False).input_ids
        answer = tokenizer(item.answer, add_special_tokens=False).input_ids
        encoded.append(Encoded([*prompt, *answer, tokenizer.eos_token_id], len(prompt)))
    return encoded


def collate(items: Sequence[Encoded], device: torch.device | str = "cpu") -> Batch:
    """Grow the prefix tree of some items; the loss lies on answers and end tokens alone."""
    nodes: dict[tuple[int, int], int] = {}  # (parent, token id) → index; the root is -1
    parents, depths, predicts, targets = [], [], [], []
    for item in items:
        at = -1
        for depth, token in enumerate(item.ids):
            if depth >= item.prompt:
                predicts.append(at)
                targets.append(token)
            if (at, token) not in nodes:
                nodes[at, token] = len(nodes)
                parents.append(at)
                depths.append(depth)
            at = nodes[at, token]
    sees = torch.eye(len(nodes), dtype=torch.bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            sees[node] |= sees[parent]
    return Batch(
        torch.tensor([[token for _, token in nodes]], device=device),
        torch.tensor([depths], device=device),
        sees[None, None].to(device),
        torch.tensor(predicts, device=device),
        torch.tensor(targets, device=device),
    )


def answer_losses(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Negative log-likelihood of every answer token, float32, [answer tokens], in nats.

    Logits are computed where an answer token is predicted and nowhere else: with a vocabulary of
    49,152 the output layer is a fifth of the forward pass.
    """
    hidden = model.get_decoder()(
        input_ids=batch.ids,
        attention_mask=batch.sees,
        position_ids=batch.positions,
        use_cache=False,
    ).last_hidden_state
    logits = model.get_output_embeddings()(hidden[0, batch.predicts])
    return F.cross_entropy(logits.float(), batch.targets, reduction="none")


def train_lora(
    model: PreTrainedModel,
    items: Sequence[Encoded],
    schedule: Schedule,
    *,
    on_step: Callable[[float], None],
) -> PeftModel:
    """Wrap `model` with adapters on all linear layers and train these on `items`.

    The same model, items and schedule on the same machine give the same adapter.

    Args:
        model: The frozen base; it is wrapped in place.
        items: What to train on.
        schedule: Steps, batch size, rank, rate and seed.
        on_step: Called with the loss (nats a token) after each step.
    """
    torch.manual_seed(schedule.seed)
    adapter = LoraConfig(
        r=schedule.rank,
        lora_alpha=2 * schedule.rank,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    wrapped = get_peft_model(model, adapter)
    wrapped.train()
    trained = [parameter for parameter in wrapped.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=schedule.rate, weight_decay=0.0)
    warm_up = max(1, schedule.steps // 10)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warm_up, (schedule.steps - step) / schedule.steps),
    )
    draws = batches(items, schedule.batch, random.Random(schedule.seed))
    for _ in range(schedule.steps):
        batch = collate(next(draws), model.device)
        loss = answer_losses(wrapped.get_base_model(), batch).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        rate.step()
        on_step(loss.item())
    wrapped.eval()
    return wrapped


def batches(
    items: Sequence[Encoded], size: int, draw: random.Random
) -> Iterator[Sequence[Encoded]]:
    """Batches in a new order every epoch, without end; an epoch's short rest is dropped.

    Raises:
        ValueError: Fewer items than one batch needs.
    """
    if len(items) < size:
        raise ValueError(f"{len(items)} items are fewer than one batch of {size}")
    while True:
        epoch = draw.sample(items, len(items))
        for start in range(0, len(items) - size + 1, size):
            yield epoch[start : start + size]
