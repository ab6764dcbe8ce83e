from __future__ import annotations

import itertools
from random import Random

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from evomerge.zoo.drawing import END, items
from evomerge.zoo.family import new_model
from evomerge.zoo.training import Muon, Schedule, answer_loss, batches, pad_batch, train


def test_only_the_answers_are_predicted_each_from_the_token_before() -> None:
    batch = pad_batch([([5, 6, 7], [8, 1]), ([5], [9, 9, 1])], padding=0)
    assert batch.tokens.tolist() == [[5, 6, 7, 8, 1], [5, 9, 9, 1, 0]]
    predicted = batch.tokens[batch.row, batch.position + 1].tolist()
    assert predicted == [8, 1, 9, 9, 1]
    assert batch.row.tolist() == [0, 0, 1, 1, 1]


def test_the_loss_does_not_depend_on_padding(shipped_tokenizer: PreTrainedTokenizerFast) -> None:
    model = new_model(shipped_tokenizer, seed=0)
    short, long = ([5, 6], [7, 1]), ([5] * 30, [8, 1])
    with torch.no_grad():
        apart = [answer_loss(model, pad_batch([pair], 0)) for pair in (short, long)]
        together = answer_loss(model, pad_batch([short, long], 0))
    assert together.item() == pytest.approx(sum(apart).item() / 2, abs=1e-5)


def test_batches_hold_every_text_once_grouped_by_length(
    shipped_tokenizer: PreTrainedTokenizerFast,
) -> None:
    drawn = items("tools", "train", 64)
    texts = itertools.cycle((item.prompt, item.answer) for item in drawn)
    made = list(itertools.islice(batches(texts, shipped_tokenizer, 4, Random(1)), 16))
    seen = [
        shipped_tokenizer.decode([t for t in row if t != 0])
        for batch in made
        for row in batch.tokens.tolist()
    ]
    assert sorted(seen) == sorted(item.prompt + item.answer + END for item in drawn)
    spans = sorted((min(lengths), max(lengths)) for lengths in map(_lengths, made))
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(spans))


def test_muon_moves_every_direction_alike() -> None:
    matrix = torch.nn.Parameter(torch.zeros(8, 16))
    torch.manual_seed(0)
    matrix.grad = torch.randn(8, 16) * torch.logspace(0, -2, 8)[:, None]
    before = torch.linalg.svdvals(matrix.grad)
    Muon([matrix]).step(rate=1.0)
    after = torch.linalg.svdvals(matrix.detach()) / (0.2 * 4)
    assert before.max() / before.min() > 50
    assert after.min() > 0.4
    assert after.max() < 1.4
    assert (matrix.detach() * matrix.grad).sum() < 0


def test_training_learns_and_leaves_the_padding_of_rates_to_the_schedule(
    shipped_tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = new_model(shipped_tokenizer, seed=0)
    texts = itertools.cycle(
        [("<|user|>a<|end|><|assistant|>", "b"), ("<|user|>c<|end|><|assistant|>", "d")]
    )
    losses: list[float] = []
    schedule = Schedule(steps=30, matrix_rate=0.003, other_rate=4e-3, warmup=5, batch=4)
    train(model, batches(texts, shipped_tokenizer, 4, Random(1)), schedule, losses.append)
    assert len(losses) == 30
    assert losses[0] > 5
    assert losses[-1] < 0.2
    assert not model.training


def _lengths(batch: object) -> list[int]:
    return [int((row != 0).sum()) for row in batch.tokens]  # type: ignore[attr-defined]
