"""Training of the zoo's models: batches of like lengths, loss on the answers, Muon and AdamW."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from evomerge.zoo.drawing import END

# So many batches are drawn at a time and sorted by length, so that little is padded.
POOL = 16


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        steps: Optimiser steps.
        matrix_rate: Highest learning rate of Muon, on the matrices inside the layers.
        other_rate: Highest learning rate of AdamW, on embeddings and norms.
        warmup: Steps of linear warm-up; from there the rate falls along a cosine to a tenth.
        batch: Items a step.
    """

    steps: int
    matrix_rate: float
    other_rate: float
    warmup: int
    batch: int = 48


@dataclass(frozen=True)
class TrainingBatch:
    """Token sequences padded on the right, and where their answers' tokens are predicted.

    Attributes:
        tokens: `[items, length]`, int64.
        row: Item of each predicted token, `[predicted]`, int64.
        position: Position from which each token is predicted, `[predicted]`, int64.
    """

    tokens: Tensor
    row: Tensor
    position: Tensor


def train(
    model: LlamaForCausalLM,
    batches: Iterator[TrainingBatch],
    schedule: Schedule,
    advance: Callable[[float], None],
) -> None:
    """Train a model in place.

    Args:
        model: A float32 model.
        batches: At least `schedule.steps` batches.
        schedule: Steps and learning rates.
        advance: Called after every step with its loss, in nats a token.
    """
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    held = {id(matrix) for matrix in matrices}
    others = [p for p in model.parameters() if id(p) not in held]
    muon = Muon(matrices)
    adam = torch.optim.AdamW(others, lr=schedule.other_rate, betas=(0.9, 0.98), weight_decay=0.0)
    model.train()
    for step in range(schedule.steps):
        loss = answer_loss(model, next(batches))
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(others, 1.0)
        share = _rate(step, schedule)
        for group in adam.param_groups:
            group["lr"] = schedule.other_rate * share
        adam.step()
        muon.step(schedule.matrix_rate * share)
        model.zero_grad(set_to_none=True)
        advance(loss.item())
    model.eval()


def answer_loss(model: LlamaForCausalLM, batch: TrainingBatch) -> Tensor:
    """Mean negative log-likelihood of the answers' tokens, in nats; a scalar under autograd."""
    # Padding stands on the right, where causal attention never looks: no mask is needed.
    hidden = model.model(input_ids=batch.tokens, use_cache=False).last_hidden_state
    logits = model.lm_head(hidden[batch.row, batch.position])
    return nn.functional.cross_entropy(logits, batch.tokens[batch.row, batch.position + 1])


def batches(
    texts: Iterator[tuple[str, str]], tokenizer: PreTrainedTokenizerFast, size: int, rng: Random
) -> Iterator[TrainingBatch]:
    """Turn endless prompts (in the chat markup) with answers into shuffled batches of like lengths."""
    while True:
        chunk = list(islice(texts, size * POOL))
        prompts = tokenizer([prompt for prompt, _ in chunk])["input_ids"]
        answers = tokenizer([answer + END for _, answer in chunk])["input_ids"]
        pairs = sorted(zip(prompts, answers, strict=True), key=lambda pair: len(pair[0] + pair[1]))
        groups = [pairs[start : start + size] for start in range(0, len(pairs), size)]
        rng.shuffle(groups)
        for group in groups:
            yield pad_batch(group, tokenizer.pad_token_id)


def pad_batch(pairs: Sequence[tuple[list[int], list[int]]], padding: int) -> TrainingBatch:
    """Stack tokens of prompts and answers, padded on the right; every token of an answer is predicted."""
    length = max(len(prompt) + len(answer) for prompt, answer in pairs)
    tokens = torch.full((len(pairs), length), padding)
    rows: list[int] = []
    positions: list[int] = []
    for row, (prompt, answer) in enumerate(pairs):
        tokens[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        rows += [row] * len(answer)
        positions += range(len(prompt) - 1, len(prompt) + len(answer) - 1)
    return TrainingBatch(tokens, torch.tensor(rows), torch.tensor(positions))


class Muon:
    """Momentum whose update is orthogonalised (Jordan et al. 2024, "Muon"), on matrices of a model.

    Args:
        matrices: Parameters of two dimensions.
        momentum: Nesterov momentum.
    """

    def __init__(self, matrices: list[nn.Parameter], momentum: float = 0.95) -> None:
        self.momentum = momentum
        self.groups: dict[torch.Size, list[nn.Parameter]] = {}
        for matrix in matrices:
            self.groups.setdefault(matrix.shape, []).append(matrix)
        self.averages = {
            shape: torch.zeros(len(group), *shape) for shape, group in self.groups.items()
        }

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move every matrix against its orthogonalised momentum.

        Args:
            rate: Learning rate; an entry moves by about `0.2 * rate` (Liu et al. 2025, Moonlight).
        """
        for shape, group in self.groups.items():
            gradient = torch.stack([p.grad for p in group if p.grad is not None])
            average = self.averages[shape].lerp_(gradient, 1 - self.momentum)
            update = _orthogonal(gradient.lerp_(average, self.momentum))
            scale = 0.2 * math.sqrt(max(shape))
            for p, direction in zip(group, update, strict=True):
                p.sub_(direction, alpha=rate * scale)


def _orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """Bring the singular values of `[n, rows, columns]` near 1, by Newton-Schulz iteration."""
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = matrices.size(1) <= matrices.size(2)
    x: Tensor = matrices if wide else matrices.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT


def _rate(step: int, schedule: Schedule) -> float:
    if step < schedule.warmup:
        return (step + 1) / schedule.warmup
    done = (step - schedule.warmup) / max(1, schedule.steps - schedule.warmup)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * done))
