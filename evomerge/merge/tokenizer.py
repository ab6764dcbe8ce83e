"""Tokenizers of model folders: which token a row stands for, and what must not be mixed."""

from __future__ import annotations

import filecmp
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from evomerge.errors import ModelError, UnlikeTokensError
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.location import has_tokenizer, locate, split_adapter

FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
)
WAY_OUT = (
    "say whose tokens the merged model has: union, base or a model, as tokenizer_source in a recipe, as "
    "models.tokenizer in a campaign"
)
MISSING = "no tokenizer in this folder, and one is needed; copy the tokenizer's files into it"


@dataclass(frozen=True)
class Tokens:
    """The tokens of one model.

    Attributes:
        ids: Token → number, added ones too.
        added: The added ones (and special ones) → transformers' AddedToken.
    """

    ids: Mapping[str, int]
    added: Mapping[str, Any]

    def within(self, rows: int | None) -> dict[str, int]:
        """Return the tokens that have a row; a tokenizer may know more than the model was built for."""
        if rows is None:
            return dict(self.ids)
        return {token: index for token, index in self.ids.items() if index < rows}


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


def tokens_of(folder: Path, *, trust_remote_code: bool = False) -> Tokens | None:
    """Return the tokens that transformers loads from a folder; None: it has no tokenizer.

    A tokenizer.json that needs code of its own to be loaded is read as it stands.

    Raises:
        ModelError: It is damaged.
    """
    if not has_tokenizer(folder):
        return None
    stamps = tuple(
        (name, (folder / name).stat().st_mtime_ns, (folder / name).stat().st_size)
        for name in FILES
        if (folder / name).is_file()
    )
    return _tokens(folder, stamps, trust_remote_code)


def check_tokens(models: Sequence[Checkpoint], *, trust_remote_code: bool = False) -> None:
    """Check that rows of one number mean one token, and that the first model's tokenizer has all tokens.

    Models without a tokenizer are taken to have the first one's.

    Raises:
        UnlikeTokensError: It names token, numbers and models, and the setting that says how to match them.
    """
    tables: list[tuple[Checkpoint, dict[str, int]]] = []
    first = models[0].tokenizer_folder
    for model in models:
        folder = model.tokenizer_folder
        if model is not models[0] and (folder == first or _same_files(folder, first)):
            continue
        found = tokens_of(folder, trust_remote_code=trust_remote_code)
        if found is not None:
            tables.append((model, found.within(model.rows)))
    _check_meanings(tables)
    if tables and tables[0][0] is models[0]:
        _check_kept(tables)


def _check_meanings(tables: Sequence[tuple[Checkpoint, Mapping[str, int]]]) -> None:
    tokens: dict[int, tuple[str, Checkpoint]] = {}
    numbers: dict[str, tuple[int, Checkpoint]] = {}
    for model, table in tables:
        for token, index in sorted(table.items(), key=lambda item: item[1]):
            other, owner = tokens.setdefault(index, (token, model))
            if other != token:
                raise UnlikeTokensError(
                    f"has another vocabulary: token {index} is {token!r}, in {owner.name} it is "
                    f"{other!r}; {WAY_OUT}",
                    file=model.name,
                )
            place, owner = numbers.setdefault(token, (index, model))
            if place != index:
                raise UnlikeTokensError(
                    f"has another vocabulary: {token!r} is token {index}, in {owner.name} it is token "
                    f"{place}; {WAY_OUT}",
                    file=model.name,
                )


def _check_kept(tables: Sequence[tuple[Checkpoint, Mapping[str, int]]]) -> None:
    (written, kept), *others = tables
    for model, table in others:
        lost = sorted(table.keys() - kept.keys(), key=lambda token: table[token])
        if lost:
            more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
            raise UnlikeTokensError(
                f"has token {table[lost[0]]}, {lost[0]!r}{more}, which the tokenizer of {written.name} "
                f"lacks; it would be lost; {WAY_OUT}",
                file=model.name,
            )


def _same_files(one: Path, other: Path) -> bool:
    """Tell whether two folders hold the same tokenizer, byte by byte."""
    for name in FILES:
        mine, theirs = one / name, other / name
        if mine.is_file() != theirs.is_file():
            return False
        if mine.is_file() and not filecmp.cmp(mine, theirs, shallow=False):
            return False
    return has_tokenizer(one)


@lru_cache(maxsize=32)
def _tokens(folder: Path, _stamps: tuple[object, ...], trust_remote_code: bool) -> Tokens | None:
    try:
        tokenizer = load_tokenizer(str(folder), trust_remote_code=trust_remote_code)
    except ModelError:
        return _stored(folder)
    added = {str(one.content): one for one in tokenizer.added_tokens_decoder.values()}
    return Tokens(dict(tokenizer.get_vocab()), added)


def _stored(folder: Path) -> Tokens | None:
    """Read a tokenizer.json without transformers."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        vocabulary = (content.get("model") or {}).get("vocab") or {}
        if not isinstance(vocabulary, Mapping):
            vocabulary = {entry[0]: index for index, entry in enumerate(vocabulary)}
        ids = {str(token): int(index) for token, index in vocabulary.items()}
        ids |= {str(one["content"]): int(one["id"]) for one in content.get("added_tokens") or []}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise ModelError(f"not a tokenizer: {error}", file=path) from None
    return Tokens(ids, {})
