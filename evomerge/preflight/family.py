"""The models of a campaign: their names as recipes write them, checked against each other, hashed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import xxhash
from transformers import PreTrainedTokenizerBase

from evomerge import config as campaign
from evomerge import zoo
from evomerge.candidate import Size, Vocabulary
from evomerge.config.faults import at_field
from evomerge.config.model_names import parts
from evomerge.errors import ModelError, UnlikeTokensError
from evomerge.merge.adapter_file import open_adapter
from evomerge.merge.checkpoint import Checkpoint, open_checkpoint
from evomerge.merge.family import check_family, check_finite
from evomerge.merge.heads import is_tied, with_heads
from evomerge.merge.layout import Layout
from evomerge.merge.location import commit, locate, split_adapter
from evomerge.merge.sampled import sample
from evomerge.merge.tokenizer import load_tokenizer
from evomerge.merge.towers import with_towers
from evomerge.merge.vocabulary import OutputVocabulary
from evomerge.space import Family

FINGERPRINTED = {".safetensors", ".bin", ".json", ".model"}
"""Weights, configurations and tokenizers."""


@dataclass(frozen=True)
class OpenFamily:
    """A checked family and its open checkpoints (headers only).

    Attributes:
        family: Names as recipes write them, layers, dtype.
        checkpoints: Model, as recipes name it → checkpoint; the base first.
        hashes: `base` or an expert's name → fingerprint of its files.
        vocabulary: Tokens of the merged models; None: the base's, which all have.
        trust_remote_code: Models may run code of their own.
        revisions: The same names → commit on the Hub, of the models that came from there.
    """

    family: Family
    checkpoints: Mapping[str, Checkpoint]
    hashes: Mapping[str, str]
    vocabulary: OutputVocabulary | None = None
    trust_remote_code: bool = False
    revisions: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the merged models.

        Raises:
            ModelError: There is none; the field is named.
        """
        if self.vocabulary is not None:
            return self.vocabulary.tokenizer
        with at_field("models.base"):
            folder = str(self.base.tokenizer_folder)
            return load_tokenizer(folder, trust_remote_code=self.trust_remote_code)

    @property
    def base(self) -> Checkpoint:
        """The base's checkpoint."""
        return self.checkpoints[self.family.base]

    @property
    def parameters(self) -> int:
        """Number of weights of one model."""
        return sum(math.prod(header.shape) for header in self.base.tensors.values())


def open_family(models: campaign.Models) -> OpenFamily:
    """Resolve `zoo:` names and adapters, open every checkpoint and check that they are one family.

    Raises:
        ModelError: A model is missing, damaged, or does not fit the base; the field is named.
    """
    checkpoints: dict[str, Checkpoint] = {}
    names: dict[str, str] = {}
    given = [("models.base", "base", models.base)]
    given += [
        (f"models.experts.{position}", expert.name, expert.model)
        for position, expert in enumerate(models.experts)
    ]
    for field_, name, model in given:
        with at_field(field_):
            if model.startswith("zoo:"):
                model = str(zoo.resolve(model))
            if names and (Path(model) / "adapter_config.json").is_file():
                model = f"{names['base']}+{model}"
            names[name] = model
            checkpoints[model] = open_checkpoint(
                model, allow_pickle=models.allow_pickle, trust_remote_code=models.trust_remote_code
            )
    hashes = {name: fingerprint(model) for name, model in names.items()}
    _check_distinct(names, hashes)
    checkpoints = with_heads(with_towers(checkpoints))
    base, *experts = (checkpoints[model] for model in names.values())
    with _at_its_model(names):
        check_family(
            base,
            experts,
            matched=models.tokenizer is not None,
            trust_remote_code=models.trust_remote_code,
        )
    own = {name: model for name, model in names.items() if name != "base"}
    asked = vocabulary = None
    if models.tokenizer is not None:
        asked = Vocabulary(own.get(models.tokenizer, models.tokenizer))
        with at_field("models.tokenizer", ModelError):
            vocabulary = OutputVocabulary.build(
                asked, checkpoints, trust_remote_code=models.trust_remote_code
            )
    layers, kind = Layout.of(base).num_layers, base.config.model_type
    family = Family(names["base"], own, layers, models.dtype, asked, kind)
    commits = {name: revision(model) for name, model in names.items()}
    revisions = {name: commit for name, commit in commits.items() if commit is not None}
    return OpenFamily(family, checkpoints, hashes, vocabulary, models.trust_remote_code, revisions)


def size_of(family: OpenFamily, *, allow_pickle: bool = False) -> Size:
    """Count the weights of the base, of a head that it ties, and of adapters on it as it is."""
    base = family.base
    weights = {name: math.prod(header.shape) for name, header in base.tensors.items()}
    embedding, heads = base.vocabulary_tensors.embedding, base.vocabulary_tensors.heads
    ties = is_tied(base.config) and not heads
    tied_head = weights[embedding] if ties and embedding is not None else 0
    adapters = {}
    plain = split_adapter(family.family.base)[1] is None
    for model in family.family.experts.values():
        _, adapter = split_adapter(model)
        shared = plain and family.checkpoints[model].folder == base.folder
        if adapter is not None and shared:
            folder = locate(adapter, allow_pickle=allow_pickle)
            adapters[model] = open_adapter(folder, allow_pickle=allow_pickle).count
    return Size.count(weights, Layout.of(base).layer_of, adapters, tied_head)


@contextmanager
def _at_its_model(names: Mapping[str, str]) -> Iterator[None]:
    """Let an error about a model name the field of the campaign that names it."""
    try:
        yield
    except ModelError as error:
        models = list(names.values())
        place = models.index(str(error.file)) if str(error.file) in models else 0
        with at_field(f"models.experts.{place - 1}" if place else "models.base"):
            raise


def open_whole(models: campaign.Models) -> tuple[campaign.Models, OpenFamily]:
    """Open a family; where its models have unlike tokens, with the union of them all.

    Raises:
        ModelError: As `open_family` does.
    """
    try:
        return models, open_family(models)
    except UnlikeTokensError:
        models = models.model_copy(update={"tokenizer": "union"})
        return models, open_family(models)


def check_weights(family: OpenFamily) -> None:
    """Check that all weights are numbers; reads every tensor of every model once.

    Raises:
        ModelError: A tensor holds NaN or infinity; it and the field of its model are named.
    """
    with _at_its_model({"base": family.family.base, **family.family.experts}):
        for checkpoint in family.checkpoints.values():
            own = checkpoint is family.base or checkpoint.folder != family.base.folder
            # of an adapter on the base only what it changes is new
            check_finite(checkpoint, None if own else sorted(checkpoint.adapted))


def fingerprint(model: str) -> str:
    """Return a hash that changes with a model's files: sizes, and bytes sampled from each.

    Args:
        model: A folder, a Hub id, or `MODEL+ADAPTER`. What is nowhere to be found stands for itself.

    Returns:
        16 hex digits; whole files up to 4 MiB are read, of larger ones 64 samples of 64 KiB.
    """
    digest = xxhash.xxh3_64()
    for part in parts(model):
        folder = _folder(part)
        if folder is None:
            digest.update(part.encode())
            continue
        for path in sorted(path for path in folder.iterdir() if path.suffix in FINGERPRINTED):
            digest.update(path.name.encode())
            sample(digest, path)
    return digest.hexdigest()


def revision(model: str) -> str | None:
    """Return the commit on the Hub that a model's files are of; None for a local folder.

    Args:
        model: A folder, a Hub id, or `MODEL+ADAPTER`: then both commits, joined by a plus.
    """
    folders = {part: _folder(part) for part in parts(model)}
    found = [commit(part, folder) for part, folder in folders.items() if folder is not None]
    return "+".join(filter(None, found)) or None


def _folder(part: str) -> Path | None:
    """Return where a model's files lie; None: nowhere."""
    try:
        return locate(part)
    except ModelError:
        return None


def _check_distinct(names: Mapping[str, str], hashes: Mapping[str, str]) -> None:
    """The same files under two names, wherever they lie, would be two dimensions of one model."""
    known: dict[str, str] = {}
    for position, (name, model) in enumerate(names.items()):
        what = f'the expert "{name}"' if position else "the base"
        found = known.setdefault(hashes[name], what)
        if found != what:
            raise ModelError(
                f"{what} is the same model as {found}; leave it out",
                file=model,
                field=f"models.experts.{position - 1}",
            )
