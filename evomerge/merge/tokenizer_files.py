"""The tokenizer of a merged model, as files in its folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from evomerge.merge.chat_templates import chosen_template
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.tokenizer import FILES, load_tokenizer
from evomerge.merge.vocabulary import OutputVocabulary

COPIED = (*FILES, "chat_template.jinja", "chat_template.json")
GENERATION = "generation_config.json"


@dataclass(frozen=True)
class TokenizerFiles:
    """What is written beside the weights; whatever is needed for it has been read.

    Attributes:
        copies: Folder → names of files that are copied from it, in order.
        tokenizer: Written over them; None: nothing is.
    """

    copies: tuple[tuple[Path, tuple[str, ...]], ...]
    tokenizer: PreTrainedTokenizerBase | None

    @classmethod
    def plan(
        cls,
        template: str | None,
        checkpoints: Mapping[str, Checkpoint],
        vocabulary: OutputVocabulary | None,
        *,
        trust_remote_code: bool,
    ) -> TokenizerFiles:
        """Find tokenizer, chat template and generation settings; without a tokenizer, the latter only.

        Args:
            template: Chat template of the merged model, or the name of one; None: its tokenizer's own.
            checkpoints: Its models, the base first.
            vocabulary: Whose tokens it has; None: the base's.
            trust_remote_code: Let models run code of their own; it is copied along.

        Raises:
            RecipeError: The chat template is none.
            ModelError: A template is asked for, and there is no tokenizer.
        """
        base = next(iter(checkpoints.values()))
        source = base.tokenizer_folder if vocabulary is None else vocabulary.folder
        own = None if vocabulary is None else checkpoints.get(vocabulary.source)
        copies: list[tuple[Path, tuple[str, ...]]] = [
            ((base if own is None else own).folder, (GENERATION,))
        ]
        tokenizer = None if vocabulary is None or source is not None else vocabulary.tokenizer
        if source is not None:
            copies.append((source, (*COPIED, *_named(source, "*.tiktoken"))))
        if trust_remote_code:
            copies.append((base.folder, _named(base.folder, "*.py")))
        folders = [checkpoint.tokenizer_folder for checkpoint in checkpoints.values()]
        chosen = chosen_template(template, folders, trust_remote_code=trust_remote_code)
        if chosen is not None:
            tokenizer = (
                load_tokenizer(str(source), trust_remote_code=trust_remote_code)
                if vocabulary is None
                else vocabulary.tokenizer
            )
            tokenizer.chat_template = chosen
        return cls(tuple(copies), tokenizer)

    def write(self, folder: Path) -> None:
        """Write them into a folder."""
        for source, names in self.copies:
            for name in names:
                if (source / name).is_file():
                    shutil.copyfile(source / name, folder / name)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)


def _named(folder: Path, pattern: str) -> tuple[str, ...]:
    return tuple(path.name for path in sorted(folder.glob(pattern)))
