"""Tokenizers of model folders."""

from __future__ import annotations

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from evomerge.errors import ModelError
from evomerge.merge.location import locate, split_adapter


def load_tokenizer(model: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model; of `MODEL+ADAPTER` the model's.

    Raises:
        ModelError: There is none, or transformers cannot read it.
    """
    folder = locate(split_adapter(model)[0], trust_remote_code=trust_remote_code)
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"no tokenizer that transformers reads: {reason}", file=folder) from None
