"""The vocabulary of a merged model: its tokens, and the models as they look through it.

mergekit's rules (0.1.5, `tokenizer_source` and `tokenizer`): rows are matched by token before they are
merged. Every input of the merge keeps its own row of a token that it has. What it lacks it gets from the
token's only owner among the inputs; else from the base, if the base has it; else it gets the mean of those
that have it; a token that no model has is zeros. `tokens` overrides that token by token. Rows beyond the
vocabulary are cut; padding rows are the mean row of the input.

Unlike mergekit's, a union comes in a fixed order: the base's tokens with their numbers, then the new ones of
each model in turn, by their numbers there. And a token that `tokens` adds to the base's vocabulary is one
that the base lacks; mergekit takes the padding row of that number for the base's own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from evomerge.candidate import TokenSource, Vocabulary, token_sources
from evomerge.errors import ModelError, RecipeError
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.location import locate, split_adapter
from evomerge.merge.plan import MergePlan
from evomerge.merge.rows import Group, seen_through
from evomerge.merge.tokenizer import MISSING, Tokens, load_tokenizer, tokens_of

SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True)
class OutputVocabulary:
    """The tokens of a merged model.

    Attributes:
        asked: What the recipe asks for.
        tokenizer: To be saved, and to be scored with.
        folder: Whose files it is; None: no folder holds it, it has to be written.
        source: Which model's it is; of a union or `base` the base's name.
        source_folder: Where that model's tokenizer is.
        ids: Token → number.
        rows: Number of rows, padding included.
        new: Model → tokens that a union has from it, in order.
        own: Model → its own row of each row of the output, -1 where it has none.
        overrides: Per token.
    """

    asked: Vocabulary
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    folder: Path | None
    source: str
    source_folder: Path
    ids: Mapping[str, int] = field(repr=False)
    rows: int
    new: Mapping[str, tuple[str, ...]]
    own: Mapping[str, torch.Tensor] = field(repr=False)
    overrides: Mapping[str, TokenSource]
    _tables: Mapping[str, Mapping[str, int]] = field(repr=False)
    _heights: Mapping[str, int] = field(repr=False)
    _groups: dict[tuple[object, ...], Group] = field(default_factory=dict, repr=False)
    _seen: dict[tuple[object, ...], dict[str, Checkpoint]] = field(default_factory=dict, repr=False)

    @classmethod
    def build(
        cls,
        asked: Vocabulary,
        models: Mapping[str, Checkpoint],
        *,
        trust_remote_code: bool = False,
    ) -> OutputVocabulary:
        """Work out the tokens of a merge.

        Args:
            asked: Whose tokens, overrides, padding.
            models: All models of the merge by name, the base first.
            trust_remote_code: Let tokenizers run code of their own.

        Raises:
            ModelError: A tokenizer is missing or damaged.
            RecipeError: An override is wrong.
        """
        overrides = token_sources(asked.tokens)
        base, *others = models
        tables = _read_tables(asked, models, trust_remote_code)
        heights = {name: _height(model) for name, model in models.items()}
        source = base if asked.source in ("base", "union") else asked.source
        folder = _tokenizer_folder(source, models, trust_remote_code)
        tokenizer = load_tokenizer(str(folder), trust_remote_code=trust_remote_code)
        stripped = source == base and _without(tokenizer, heights[base], folder)
        before = len(tokenizer.get_vocab())
        new: dict[str, tuple[str, ...]] = {}
        for name in others if asked.source == "union" else ():
            new[name] = _add(tokenizer, tables[name], heights[name])
        tokenizer.add_tokens([token for token in overrides if token not in tokenizer.get_vocab()])
        ids = dict(tokenizer.get_vocab())
        for token in (*(token for added in new.values() for token in added), *overrides):
            if token not in ids:
                raise ModelError(f"its tokenizer does not take the token {token!r}", file=folder)
        size = max(len(ids), max(ids.values()) + 1)
        multiple = asked.pad_to_multiple_of or 1
        rows = -(-size // multiple) * multiple
        return cls(
            asked=asked,
            tokenizer=tokenizer,
            folder=folder if len(ids) == before and not stripped else None,
            source=source,
            source_folder=folder,
            ids=ids,
            rows=rows,
            new=new,
            own={n: _own(ids, table.within(heights[n]), rows) for n, table in tables.items()},
            overrides=overrides,
            _tables={name: table.ids for name, table in tables.items()},
            _heights=heights,
        )

    def seen(self, plan: MergePlan, checkpoints: Mapping[str, Checkpoint]) -> dict[str, Checkpoint]:
        """Return the models with their embeddings and heads row by row in this vocabulary.

        Which rows a model gets of tokens that it lacks depends on the other inputs of the same tensor.

        Args:
            plan: Of the merge.
            checkpoints: The models that this vocabulary was built for.

        Raises:
            RecipeError: An override names a model that is not an input, or a row that it lacks.
        """
        known = next(iter(checkpoints.values())).vocabulary_tensors.names
        inputs: list[tuple[str, tuple[str, ...], str | None]] = []
        for piece in plan.tensors:
            if piece.name in known:
                inputs.append((piece.name, piece.models, piece.ancestor))
        key = tuple(inputs)
        if key not in self._seen:
            views: dict[str, dict[str, Group]] = {}
            for tensor, names, base in inputs:
                group = self._group(names, base)
                for name in names:
                    views.setdefault(name, {})[tensor] = group
            self._seen[key] = {
                name: seen_through(one, views.get(name, {}), checkpoints)
                for name, one in checkpoints.items()
            }
        return self._seen[key]

    def of_merges(self, merges: Mapping[str, Sequence[str]]) -> OutputVocabulary:
        """Return it for what is merged from merges, whose rows it orders already, and from its models.

        A merge has a row of each token that one of its models has, or that an override gave it.

        Args:
            merges: Name → the models that the merge is made of.
        """
        rows = torch.arange(self.rows)
        numbers = [self.ids[token] for token in self.overrides]
        given = torch.isin(rows, torch.tensor(numbers, dtype=torch.int64))
        own = dict(self.own)
        for name, models in merges.items():
            has = torch.stack([self.own[model] for model in models]).amax(0) >= 0
            own[name] = torch.where(has | given, rows, -1)
        return replace(self, own=own, overrides={}, _groups={}, _seen={})

    def lacks(self, name: str) -> bool:
        """Tell whether an input lacks some of the tokens."""
        return bool((self.own[name][list(self.ids.values())] < 0).any())

    def lost(self) -> dict[str, tuple[str, ...]]:
        """Return model → tokens that it has a row for and the output lacks, by number."""
        found = {}
        for name, table in self._tables.items():
            within = {token: row for token, row in table.items() if row < self._heights[name]}
            gone = sorted(within.keys() - self.ids.keys(), key=lambda token: within[token])
            if gone:
                found[name] = tuple(gone)
        return found

    def filled(self, names: tuple[str, ...], base: str | None) -> dict[str, int]:
        """Count the tokens that some of these inputs lack, by the rule that fills up their rows."""
        return self._group(names, base).counts(base)

    def configure(self, config: PretrainedConfig, of: str | None = None) -> None:
        """Write into a merged model's configuration how many rows it has, and which are special.

        Args:
            config: Changed in place; its special tokens have the numbers of one of the models.
            of: That model; None: the base.
        """
        text = config.get_text_config()
        text.vocab_size = self.rows
        base = next(iter(self._tables))
        if self.asked.source in ("base", "union") and of in (None, base):
            return  # the base's tokens have the base's numbers
        names = {index: token for token, index in self._tables[of or base].items()}
        for part in (config,) if config is text else (config, text):
            for key in SPECIAL:
                before = getattr(part, key, None)
                if isinstance(before, list):
                    moved = [self.ids.get(names.get(one, ""), None) for one in before]
                    setattr(part, key, [one for one in moved if one is not None] or None)
                elif before is not None:
                    setattr(part, key, self.ids.get(names.get(before, "")))

    def _group(self, names: tuple[str, ...], base: str | None) -> Group:
        key = (names, base)
        if key not in self._groups:
            own = {name: self.own[name] for name in names}
            group = Group.of(repr(self.asked), names, base, own, self.ids.values())
            for token, source in self.overrides.items():
                if source.kind != "none":
                    donor = self._donor(token, source, names)
                    group.override(self.ids[token], donor, force=source.force)
                elif not group.all_have(self.ids[token]):
                    raise RecipeError(
                        f"a model lacks {token!r}; say where its row comes from",
                        field=f"tokenizer.tokens.{token}",
                    )
            self._groups[key] = group
        return self._groups[key]

    def _donor(
        self, token: str, source: TokenSource, names: tuple[str, ...]
    ) -> tuple[str, int] | None:
        if source.model is None:
            return None
        where = f"tokenizer.tokens.{token}"
        if source.model not in names:
            raise RecipeError(
                f"{source.model} is not among the models that the embeddings are merged from",
                field=where,
            )
        wanted = token if source.kind == "model" else source.token
        row = source.token_id if wanted is None else self._tables[source.model].get(wanted)
        if row is None:
            raise RecipeError(f"{source.model} has no token {wanted!r}", field=where)
        if row >= self._heights[source.model]:
            raise RecipeError(
                f"{source.model} has {self._heights[source.model]} rows, found {row}", field=where
            )
        return source.model, row


def _read_tables(
    asked: Vocabulary, models: Mapping[str, Checkpoint], trust_remote_code: bool
) -> dict[str, Tokens]:
    """Model → tokens; a model without a tokenizer is taken to have the base's, or the one asked for."""
    found = {
        name: tokens_of(model.tokenizer_folder, trust_remote_code=trust_remote_code)
        for name, model in models.items()
    }
    base = next(iter(models))
    other = found[base]
    if other is None:
        source = base if asked.source in ("base", "union") else asked.source
        folder = _tokenizer_folder(source, models, trust_remote_code)
        other = tokens_of(folder, trust_remote_code=trust_remote_code)
        if other is None:
            raise ModelError(MISSING, file=folder)
    return {name: other if tokens is None else tokens for name, tokens in found.items()}


def _tokenizer_folder(
    source: str, models: Mapping[str, Checkpoint], trust_remote_code: bool
) -> Path:
    if source in models:
        return models[source].tokenizer_folder
    try:
        return locate(split_adapter(source)[0], trust_remote_code=trust_remote_code)
    except ModelError as error:
        raise RecipeError(f"{source}: {error.message}", field="tokenizer.source") from None


def _height(model: Checkpoint) -> int:
    rows = model.rows
    if rows is None:
        raise ModelError(
            "its embeddings cannot be told from its tensors' names and the config's vocab_size, so rows "
            "cannot be matched by token",
            file=model.name,
        )
    return rows


def _without(tokenizer: PreTrainedTokenizerBase, rows: int, folder: Path) -> bool:
    """Take the tokens out that have no row; tell whether there were any."""
    beyond = {token: index for token, index in tokenizer.get_vocab().items() if index >= rows}
    if not beyond:
        return False
    added = {str(one.content) for one in tokenizer.added_tokens_decoder.values()}
    plain = sorted(beyond.keys() - added)
    if plain or not tokenizer.is_fast:
        token = (plain or sorted(beyond))[0]
        raise ModelError(
            f"its tokenizer has token {beyond[token]}, {token!r}, its embeddings have only {rows} rows",
            file=folder,
        )
    content = json.loads(tokenizer._tokenizer.to_str())
    content["added_tokens"] = [one for one in content["added_tokens"] if one["id"] < rows]
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(content))
    for name, token in tokenizer.special_tokens_map.items():  # it would add them again when loaded
        if isinstance(token, str) and token in beyond:
            setattr(tokenizer, name, None)
    kept = [token for token in tokenizer.extra_special_tokens if str(token) not in beyond]
    tokenizer.extra_special_tokens = kept
    return True


def _add(tokenizer: PreTrainedTokenizerBase, tokens: Tokens, rows: int) -> tuple[str, ...]:
    """Add what a model has and the tokenizer lacks, in the order of the model's numbers."""
    known = tokenizer.get_vocab()
    table = tokens.within(rows)
    new = sorted(table.keys() - known.keys(), key=lambda token: table[token])
    tokenizer.add_tokens([tokens.added.get(token, token) for token in new])
    return tuple(new)


def _own(ids: Mapping[str, int], table: Mapping[str, int], rows: int) -> torch.Tensor:
    """Return a model's own row of each row of the output, -1 where it has none; int64 `[rows]`."""
    own = torch.full((rows,), -1, dtype=torch.int64)
    shared = ids.keys() & table.keys()
    places = torch.tensor([ids[token] for token in shared], dtype=torch.int64)
    own[places] = torch.tensor([table[token] for token in shared], dtype=torch.int64)
    return own
