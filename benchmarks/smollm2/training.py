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
    rate: float = 1e-3
    seed: int = 0


@dataclass(frozen=True)
class Encoded:
    """Token ids of one item: prompt, answer, end token; the first `prompt` of them are prompt."""

    ids: list[int]
    prompt: int


@dataclass(frozen=True)
class Batch:
    """Padded items.

    Attributes:
        ids: [items, tokens], int64, padded on the right.
        attended: [items, tokens], 1 on real tokens, int64.
        predicts: [items, tokens], bool: positions whose next token is part of an answer.
        targets: [predicting positions], int64: those next tokens, in row order.
    """

    ids: Tensor
    attended: Tensor
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


def collate(items: Sequence[Encoded], pad: int) -> Batch:
    """Pad items into a batch whose loss lies on the answers and their end tokens alone."""
    width = max(len(item.ids) for item in items)
    ids = torch.full((len(items), width), pad)
    attended = torch.zeros_like(ids)
    predicts = torch.zeros_like(ids, dtype=torch.bool)
    for row, item in enumerate(items):
        ids[row, : len(item.ids)] = torch.tensor(item.ids)
        attended[row, : len(item.ids)] = 1
        predicts[row, item.prompt - 1 : len(item.ids) - 1] = True
    return Batch(ids, attended, predicts, ids.roll(-1, dims=1)[predicts])


def answer_losses(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Negative log-likelihood of every answer token, float32, [predicting positions], in nats.

    Logits are computed where an answer token is predicted and nowhere else: with a vocabulary of
    49,152 the output layer is a fifth of the forward pass.
    """
    hidden = model.get_decoder()(
        input_ids=batch.ids, attention_mask=batch.attended, use_cache=False
    ).last_hidden_state
    logits = model.get_output_embeddings()(hidden[batch.predicts])
    return F.cross_entropy(logits.float(), batch.targets, reduction="none")


def train_lora(
    model: PreTrainedModel,
    items: Sequence[Encoded],
    schedule: Schedule,
    *,
    pad: int,
    on_step: Callable[[float], None],
) -> PeftModel:
    """Wrap `model` with adapters on all linear layers and train these on `items`.

    The same model, items and schedule on the same machine give the same adapter.

    Args:
        model: The frozen base; it is wrapped in place.
        items: What to train on.
        schedule: Steps, batch size, rank, rate and seed.
        pad: Token id that fills short rows.
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
        batch = _to(collate(next(draws), pad), model.device)
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
    """Batches of items of like length, epoch after epoch, without end; short rests are dropped.

    Raises:
        ValueError: Fewer items than one batch needs.
    """
    if len(items) < size:
        raise ValueError(f"{len(items)} items are fewer than one batch of {size}")
    while True:
        shuffled = draw.sample(items, len(items))
        epoch = []
        for start in range(0, len(shuffled), 8 * size):
            alike = sorted(shuffled[start : start + 8 * size], key=lambda item: len(item.ids))
            full = range(0, len(alike) - size + 1, size)
            epoch += [alike[first : first + size] for first in full]
        draw.shuffle(epoch)
        yield from epoch


def _to(batch: Batch, device: torch.device) -> Batch:
    return Batch(
        batch.ids.to(device),
        batch.attended.to(device),
        batch.predicts.to(device),
        batch.targets.to(device),
    )
