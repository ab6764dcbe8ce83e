"""The chat template of a merged model, by mergekit's rules and names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from evomerge.errors import ModelError, RecipeError, nearest
from evomerge.merge.tokenizer import load_tokenizer

AUTO = "auto"
TEMPLATES = {
    "alpaca": (
        "{% for message in messages %}{% if message['role'] == 'user' %}"
        "{{ '### Instruction:\\n' + message['content'] + '\\n\\n' }}"
        "{% elif message['role'] == 'assistant' %}"
        "{{ '### Response:\\n' + message['content'] + '\\n\\n' }}"
        "{% else %}{{ message['content'] + '\\n\\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}"
    ),
    "chatml": (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + "
        "message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
    "exaone": (
        "{% if messages and messages[0]['role'] != 'system' %}"
        "{{ '[|system|][|endofturn|]\\n' }}{% endif %}"
        "{% for message in messages %}{{ '[|' + message['role'] + '|]' + message['content'] }}"
        "{{ '\\n' if message['role'] == 'user' else '[|endofturn|]\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '[|assistant|]' }}{% endif %}"
    ),
    "llama3": (
        "{% for message in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
        "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
        "{{ message['content'] | trim }}{{ '<|eot_id|>' }}{% endfor %}"
        "{% if add_generation_prompt %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
    ),
    "mistral": (
        "{% set talk = namespace(system='', turn=0) %}{{ bos_token }}{% for message in messages %}"
        "{% if message['role'] == 'system' and loop.first %}"
        "{% set talk.system = message['content'] + '\\n\\n' %}"
        "{% elif message['role'] == 'user' and talk.turn % 2 == 0 %}"
        "{{ ' [INST] ' + (talk.system if talk.turn == 0 else '') + message['content'] + ' [/INST]' }}"
        "{% set talk.turn = talk.turn + 1 %}"
        "{% elif message['role'] == 'assistant' and talk.turn % 2 == 1 %}"
        "{{ ' ' + message['content'] + eos_token }}{% set talk.turn = talk.turn + 1 %}"
        "{% else %}{{ raise_exception('user and assistant must take turns, after one system "
        "message at most') }}{% endif %}{% endfor %}"
    ),
}
"""The formats that go by mergekit's five names, in templates of our own."""


def chosen_template(
    asked: str | None, folders: Sequence[Path], *, trust_remote_code: bool = False
) -> str | None:
    """Return the template to save, or None to leave the tokenizer as it is.

    Args:
        asked: The recipe's: a Jinja template, the name of one, or `auto` for the commonest one among the
            models; of a model with several the one that is called default.
        folders: Where the models' tokenizers are.
        trust_remote_code: Let tokenizers run code of their own.

    Raises:
        RecipeError: It is neither.
    """
    if asked is None:
        return None
    check_template(asked)
    if asked != AUTO:
        return TEMPLATES.get(asked, asked)
    found = [_template(folder, trust_remote_code) for folder in dict.fromkeys(folders)]
    counted = Counter(template.strip() for template in found if template)
    return counted.most_common(1)[0][0] if counted else None


def check_template(asked: str) -> None:
    """Check that a template is known, before anything is merged.

    Raises:
        RecipeError: It is neither a Jinja template nor the name of one.
    """
    if "{" not in asked and asked not in (AUTO, *TEMPLATES):
        raise RecipeError(
            f'"{asked}" is neither a Jinja template nor the name of one; '
            + nearest(asked, (AUTO, *TEMPLATES)),
            field="chat_template",
        )


def _template(folder: Path, trust_remote_code: bool) -> str | None:
    try:
        found = load_tokenizer(str(folder), trust_remote_code=trust_remote_code).chat_template
    except ModelError:  # a model without a tokenizer has no say
        return None
    if isinstance(found, dict):
        found = found.get("default")
    return found if isinstance(found, str) else None
