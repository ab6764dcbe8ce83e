"""The tokenizer of a merged model, as files in its folder."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from evomerge.merge.chat_templates import chosen_template
from evomerge.merge.models import OpenModels
from evomerge.merge.tokenizer import FILES

COPIED = (*FILES, "chat_template.jinja", "chat_template.json")
TEMPLATES = "additional_chat_templates/*.jinja"
"""The chat templates with names of their own, as transformers 5 writes them."""
GENERATION = "generation_config.json"
PROCESSORS = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
"""What turns pictures and sounds into what a model reads."""


@dataclass(frozen=True)
class TokenizerFiles:
    """What is written beside the weights; whatever is needed for it has been read.

    Attributes:
        copies: Folder → files that are copied from it, by their paths within it, in order.
        tokenizer: Written over them; None: nothing is.
    """

    copies: tuple[tuple[Path, tuple[str, ...]], ...]
    tokenizer: PreTrainedTokenizerBase | None

    @classmethod
    def plan(cls, template: str | None, models: OpenModels) -> TokenizerFiles:
        """Find tokenizer, chat template and generation settings; without a tokenizer, the latter only.

        Args:
            template: Chat template of the merged model, or the name of one; None: its tokenizer's own.
            models: Open; where they may run code of their own, it is copied along.

        Raises:
            RecipeError: The chat template is none.
            ModelError: A template is asked for, and no tokenizer exists.
        """
        vocabulary, trust_remote_code = models.vocabulary, models.trust_remote_code
        source = models.base.tokenizer_folder if vocabulary is None else vocabulary.folder
        # A file of the base's that names special tokens by number is wrong under another one's tokenizer.
        owner = models.base.folder
        if vocabulary is not None and vocabulary.source in models.checkpoints:
            owner = models.checkpoints[vocabulary.source].folder
        elif vocabulary is not None:
            owner = vocabulary.source_folder
        folders = [checkpoint.tokenizer_folder for checkpoint in models.checkpoints.values()]
        chosen = chosen_template(template, folders, trust_remote_code=trust_remote_code)
        copies: list[tuple[Path, tuple[str, ...]]] = [
            (models.base.folder, PROCESSORS),
            (owner, (GENERATION,)),
        ]
        if source is not None:
            named = () if chosen is not None else _found(source, TEMPLATES)
            copies.append((source, (*COPIED, *named, *_found(source, "*.tiktoken"))))
        if trust_remote_code:
            copies.append((models.base.folder, _found(models.base.folder, "*.py")))
        if chosen is not None:
            models.tokenizer.chat_template = chosen
        written = chosen is not None or source is None
        return cls(tuple(copies), models.tokenizer if written else None)

    def write(self, folder: Path) -> None:
        """Write them into a folder."""
        for source, names in self.copies:
            for name in names:
                if (source / name).is_file():
                    (folder / name).parent.mkdir(exist_ok=True)
                    shutil.copyfile(source / name, folder / name)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)


def _found(folder: Path, pattern: str) -> tuple[str, ...]:
    return tuple(str(path.relative_to(folder)) for path in sorted(folder.glob(pattern)))
