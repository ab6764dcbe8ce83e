"""What a model of the zoo scores on the zoo's jobs."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from evomerge.zoo.drawing import END, items
from evomerge.zoo.training import pad_batch

BATCH = 50


@torch.inference_mode()
def mean_exact_match(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, job: str, count: int = 200
) -> float:
    """Score a model on a job's test items.

    An item counts when every token of the canonical answer, its end mark included, is the likeliest
    one after those before it: what greedy generation would write, in one forward pass. The model is in
    float32; the share of items answered exactly is returned.
    """
    drawn = items(job, "test", count)
    prompts = tokenizer([item.prompt for item in drawn])["input_ids"]
    answers = tokenizer([item.answer + END for item in drawn])["input_ids"]
    pairs = sorted(zip(prompts, answers, strict=True), key=lambda pair: len(pair[0] + pair[1]))
    right = 0
    for start in range(0, count, BATCH):
        batch = pad_batch(pairs[start : start + BATCH], tokenizer.pad_token_id)
        logits = model(input_ids=batch.tokens, use_cache=False).logits
        likeliest = logits[batch.row, batch.position].argmax(-1)
        missed = batch.row[likeliest != batch.tokens[batch.row, batch.position + 1]]
        right += len(batch.tokens) - len(set(missed.tolist()))
    return right / count
