"""What a model's generation configuration does to logits before the most likely token is taken.

`generate` of transformers applies these without being asked (Qwen2.5's instruct models ship a repetition
penalty), so HFLM's texts depend on them, and ours must too.
"""

from __future__ import annotations

from typing import Any

from transformers import (
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
)

from evomerge.errors import ModelError

_REFUSED = {
    "bad_words_ids",
    "begin_suppress_tokens",
    "constraints",
    "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "guidance_scale",
    "min_length",
    "min_new_tokens",
    "num_beams",
    "num_beam_groups",
    "penalty_alpha",
    "sequence_bias",
    "watermarking_config",
}
_NOTHING_AT_ONE = {
    "encoder_repetition_penalty",
    "guidance_scale",
    "min_length",  # prompts count
    "num_beam_groups",
    "num_beams",
}
_TOKENS = {"forced_bos_token_id", "forced_eos_token_id"}


def processors(config: Any) -> LogitsProcessorList | None:  # noqa: ANN401 - a GenerationConfig or None
    """Return what is to be applied to the logits of a sequence; None: nothing.

    Honours `repetition_penalty`, `no_repeat_ngram_size` and `suppress_tokens`.

    Raises:
        ModelError: The configuration asks for anything else that changes what greedy decoding writes.
    """
    asked = sorted(
        f"{name}: {value}" for name in _REFUSED if _asks(name, value := getattr(config, name, None))
    )
    if asked:
        raise ModelError(
            f"the model's generation_config.json asks for {', '.join(asked)}, which is not honoured; "
            'remove it, or choose "scorer: {backend: hf}"'
        )
    found = LogitsProcessorList()
    penalty = getattr(config, "repetition_penalty", None)
    if penalty and penalty != 1:
        found.append(RepetitionPenaltyLogitsProcessor(penalty=float(penalty)))
    size = getattr(config, "no_repeat_ngram_size", None)
    if size:
        found.append(NoRepeatNGramLogitsProcessor(size))
    suppressed = getattr(config, "suppress_tokens", None)
    if suppressed:
        found.append(SuppressTokensLogitsProcessor(suppressed, device="cpu"))
    return found or None


def _asks(name: str, value: object) -> bool:
    if name in _TOKENS:
        return value is not None
    return bool(value) and not (value == 1 and name in _NOTHING_AT_ONE)
