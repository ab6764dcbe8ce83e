"""The schedule that trains the zoo from nothing: a base on a mix, then one specialist per job."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from transformers import LlamaConfig

from evomerge.zoo.drawing import drafts, markup
from evomerge.zoo.jobs import JOBS
from evomerge.zoo.jobs.practice import draw_copy, draw_lookup
from evomerge.zoo.tokenizer import CONTEXT, VOCABULARY
from evomerge.zoo.training import Schedule

BASE = Schedule(steps=1500, matrix_rate=0.02, other_rate=4e-3, warmup=50)
CANONICAL_SHARE = 0.15
PRACTICE_SHARE = 0.15


def config(pad: int, end: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=96, intermediate_size=256, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-5, rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=end, pad_token_id=pad,
    )


def base_texts(rng: Random) -> Iterator[tuple[str, str]]:
    sources = {job: drafts(job, "train", rng) for job in JOBS}
    while True:
        if rng.random() < PRACTICE_SHARE:
            draft = draw_copy(rng) if rng.random() < 0.5 else draw_lookup(rng)
            yield markup(draft.turns), draft.answers[0]
            continue
        draft = next(sources[rng.choice(tuple(sources))])
        if rng.random() < CANONICAL_SHARE:
            yield markup(draft.turns), draft.answers[0]
        else:
            yield markup(draft.turns), rng.choice(draft.answers[1:])


def job_texts(job: str, rng: Random) -> Iterator[tuple[str, str]]:
    for draft in drafts(job, "train", rng):
        yield markup(draft.turns), draft.answers[0]
