"""The tokenizer of a merged model, as files in its folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from evomerge.merge.chat_templates import chosen_template
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.tokenizer import load_tokenizer
from evomerge.merge.vocabulary import OutputVocabulary
from evomerge.recipe import Recipe

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "spiece.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
GENERATION = "generation_config.json"


def write_tokenizer(
    recipe: Recipe,
    checkpoints: Mapping[str, Checkpoint],
    vocabulary: OutputVocabulary | None,
    folder: Path,
    *,
    trust_remote_code: bool,
) -> None:
    """Write tokenizer, chat template and generation settings; without a tokenizer, what there is of them.

    Args:
        recipe: Of the merged model.
        checkpoints: Its models, the base first.
        vocabulary: Whose tokens it has; None: the base's.
        folder: Of the merged model.
        trust_remote_code: Let models run code of their own; it is copied along.

    Raises:
        RecipeError: The chat template is none.
        ModelError: A template is asked for, and there is no tokenizer.
    """
    base = next(iter(checkpoints.values()))
    source = base.tokenizer_folder if vocabulary is None else vocabulary.folder
    own = None if vocabulary is None else checkpoints.get(vocabulary.source)
    _copy((base if own is None else own).folder, (GENERATION,), folder)
    if source is not None:
        _copy(source, (*FILES, *(path.name for path in source.glob("*.tiktoken"))), folder)
    elif vocabulary is not None:
        vocabulary.tokenizer.save_pretrained(folder)
    if trust_remote_code:
        _copy(base.folder, tuple(path.name for path in base.folder.glob("*.py")), folder)
    folders = [checkpoint.tokenizer_folder for checkpoint in checkpoints.values()]
    template = chosen_template(recipe.chat_template, folders, trust_remote_code=trust_remote_code)
    if template is not None:
        tokenizer = (
            load_tokenizer(str(source), trust_remote_code=trust_remote_code)
            if vocabulary is None
            else vocabulary.tokenizer
        )
        tokenizer.chat_template = template
        tokenizer.save_pretrained(folder)


def _copy(source: Path, names: tuple[str, ...], folder: Path) -> None:
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
