"""Tokenizers of model folders."""

from __future__ import annotations

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from evomerge.errors import ModelError
from evomerge.merge.location import has_tokenizer, locate, split_adapter

MISSING = "no tokenizer in this folder, and one is needed; copy the tokenizer's files into it"


def load_tokenizer(model: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model; of `MODEL+ADAPTER` the model's.

    Raises:
        ModelError: There is none, or transformers cannot read it.
    """
    folder = locate(split_adapter(model)[0], trust_remote_code=trust_remote_code)
    bare = not has_tokenizer(folder)
    if bare and not (folder / "tokenizer_config.json").is_file():
        raise ModelError(MISSING, file=folder)
    try:
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # noqa: BLE001 - the tokenizers library knows no narrower one
        if bare:
            raise ModelError(MISSING, file=folder) from None
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ModelError(f"no tokenizer that transformers reads: {reason}", file=folder) from None
    return found
