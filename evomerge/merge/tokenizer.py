"""Tokenizers of model folders, and the chat template of a merged model by mergekit's rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from evomerge.errors import ModelError, RecipeError, nearest
from evomerge.merge.location import locate, split_adapter

TEMPLATES = {
    "chatml": (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + "
        "message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
    "alpaca": (
        "{% for message in messages %}{% if message['role'] == 'user' %}"
        "{{ '### Instruction:\\n' + message['content'] + '\\n\\n' }}"
        "{% elif message['role'] == 'assistant' %}"
        "{{ '### Response:\\n' + message['content'] + '\\n\\n' }}"
        "{% else %}{{ message['content'] + '\\n\\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}"
    ),
}


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


def chosen_template(asked: str | None, folders: Sequence[Path]) -> str | None:
    """Return the template to save, or None to leave the tokenizer as it is.

    Args:
        asked: The recipe's: a Jinja template, the name of one, or `auto` for the commonest one among the
            models.
        folders: Of the models.

    Raises:
        RecipeError: It is neither.
    """
    if asked is None:
        return None
    if asked == "auto":
        found = [load_tokenizer(str(folder)).chat_template for folder in dict.fromkeys(folders)]
        templates = Counter(template for template in found if isinstance(template, str))
        return templates.most_common(1)[0][0] if templates else None
    if "{" in asked:
        return asked
    if asked not in TEMPLATES:
        raise RecipeError(
            f'"{asked}" is no Jinja template and no name of one; {nearest(asked, ("auto", *TEMPLATES))}',
            field="chat_template",
        )
    return TEMPLATES[asked]
