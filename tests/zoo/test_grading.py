from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from evomerge.errors import TaskError
from evomerge.zoo.drawing import items
from evomerge.zoo.grading import mean_exact_match


def test_it_is_what_greedy_generation_writes(
    shipped_tools: torch.nn.Module, shipped_tokenizer: PreTrainedTokenizerFast
) -> None:
    # A job of another specialist too, so that some answers are right and some wrong.
    shares = []
    for job in ("tools", "translation"):
        right = 0
        for item in items(job, "test", 15):
            tokens = shipped_tokenizer(item.prompt, return_tensors="pt")["input_ids"]
            written = shipped_tools.generate(
                input_ids=tokens,
                attention_mask=torch.ones_like(tokens),
                max_new_tokens=48,
                do_sample=False,
            )
            text = shipped_tokenizer.decode(written[0, tokens.size(1) :], skip_special_tokens=True)
            right += text == item.answer
        assert mean_exact_match(shipped_tools, shipped_tokenizer, job, 15) == right / 15
        shares.append(right / 15)
    assert shares[0] > 0.5 > shares[1]


def test_an_unknown_job_is_an_error(
    shipped_tools: torch.nn.Module, shipped_tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(TaskError, match="unknown job"):
        mean_exact_match(shipped_tools, shipped_tokenizer, "cooking")
