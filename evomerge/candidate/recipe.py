"""The recipe, a frozen value with the shape of a mergekit configuration.

Terms and scopes are mergekit's: a parameter is looked up in source, slice, module and global scope, in
this order; a setting is a scalar, a gradient over the layers of a slice, or a list of conditionals.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from evomerge.candidate.coefficients import Coefficients

Scalar = bool | int | float | str
STATISTICS = "statistics.safetensors"
"""Beside a recipe whose method reads statistics, and in the results folder of such a campaign."""
NEEDS_STATISTICS = (
    f"Its method reads statistics of the experts: `{STATISTICS}`, beside the recipe, holds them and is "
    "needed to build this model. mergekit does not read that file, and so cannot build this merge."
)
"""For model cards."""
_PLACES = re.compile(r"#(\d+(?:,\d+)*)$")


def split_places(statistics: str) -> tuple[str, tuple[int, ...]]:
    """Split `FILE#0,2`, how a recipe names statistics, into the file and its experts' places there.

    Without places these are 0, 1, … in the order of the recipe's experts.
    """
    found = _PLACES.search(statistics)
    if found is None:
        return statistics, ()
    return statistics[: found.start()], tuple(map(int, found[1].split(",")))


def with_places(file: str, places: tuple[int, ...]) -> str:
    """Return what `split_places` splits; without places the file alone."""
    return f"{file}#{','.join(map(str, places))}" if places else file


@dataclass(frozen=True)
class Conditional:
    """A value for the tensors whose name contains `filter` (None or `*`: all).

    Attributes:
        value: A scalar, or a gradient over the layers of the slice.
        filter: Substring of the tensor's name.
    """

    value: Scalar | tuple[Scalar, ...]
    filter: str | None = None


Setting = Scalar | tuple[Scalar, ...] | tuple[Conditional, ...]


@dataclass(frozen=True)
class Source:
    """A model that a slice is made from.

    Attributes:
        model: A folder or a Hub id; `MODEL+ADAPTER` is a model with a LoRA adapter, as in mergekit.
        layer_range: [start, stop) of its layers; None: all. An empty one gives no layer: as the first slice
            it only picks the embeddings, as the last final norm and head (mergekit's rule).
        parameters: Settings that hold for this model only.
    """

    model: str
    layer_range: tuple[int, int] | None = None
    parameters: Mapping[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True)
class Slice:
    """A run of output layers and the models it is made from.

    Attributes:
        sources: The models, each with a layer range of the same length.
        base_model: Overrides the recipe's; must be one of `sources`.
        parameters: Settings for all sources of this slice.
    """

    sources: tuple[Source, ...]
    base_model: str | None = None
    parameters: Mapping[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True)
class Vocabulary:
    """How vocabularies are matched by token before merging (mergekit's `tokenizer`).

    Attributes:
        source: `base`, `union` or a model.
        tokens: Per token, mergekit's override as it stands in the file.
        pad_to_multiple_of: Pad the vocabulary's rows.
    """

    source: str
    tokens: Mapping[str, object] = field(default_factory=dict)
    pad_to_multiple_of: int | None = None

    def renamed(self, new: Callable[[str], str]) -> Vocabulary:
        """Return the same with each model's name replaced."""

        def token(value: object) -> object:
            if not isinstance(value, Mapping):
                return value
            source = value.get("source")
            if isinstance(source, str):
                return {**value, "source": new(source)}
            if isinstance(source, Mapping) and isinstance(source.get("model"), str):
                return {**value, "source": {**source, "model": new(source["model"])}}
            return value

        source = self.source if self.source in ("base", "union") else new(self.source)
        tokens = {name: token(value) for name, value in self.tokens.items()}
        return replace(self, source=source, tokens=tokens)


@dataclass(frozen=True)
class Recipe:
    """One merged model: method, models, parameters, seed.

    Exactly one of `models` (one slice over all layers) and `slices` is given, as in mergekit.

    Attributes:
        method: Name of a merge method, such as `ties`.
        models: Models over all their layers.
        slices: Output layers, group by group.
        base_model: The common ancestor; None for methods that take none.
        parameters: Global settings.
        dtype: Of the merged weights (the maths runs in float32 and rounds once); None: the base's own.
        out_dtype: Of the file, where it differs.
        vocabulary: None: unlike vocabularies are an error.
        chat_template: A template, or the name of one; None: the tokenizer's own.
        seed: Keys the random masks; ignored where a method draws none.
        coefficients: What single tensors and rows add to `weight`, experts in the order of `experts`.
        statistics: A safetensors file of what is known of the experts' activations, or of other importances
            of their weights, experts in the order of `experts`; None: none.
    """

    method: str
    models: tuple[Source, ...] = ()
    slices: tuple[Slice, ...] = ()
    base_model: str | None = None
    parameters: Mapping[str, Setting] = field(default_factory=dict)
    dtype: str | None = None
    out_dtype: str | None = None
    vocabulary: Vocabulary | None = None
    chat_template: str | None = None
    seed: int = 0
    coefficients: Coefficients | None = None
    statistics: str | None = None

    @property
    def experts(self) -> tuple[str, ...]:
        """Every model but the base, each once, in order of appearance."""
        return tuple(name for name in self.model_names() if name != self.base_model)

    def scopes(self) -> tuple[Mapping[str, Setting], ...]:
        """Return the parameters of every scope."""
        inner = (source for piece in self.slices for source in piece.sources)
        return (
            self.parameters,
            *(piece.parameters for piece in self.slices),
            *(source.parameters for source in (*self.models, *inner)),
        )

    def with_seed(self, seed: int) -> Recipe:
        """Return the same recipe with other random masks."""
        return replace(self, seed=seed)

    def model_names(self) -> tuple[str, ...]:
        """Return every model referred to, the base first, each once, in order of appearance."""
        names = [] if self.base_model is None else [self.base_model]
        for source in self.models:
            names.append(source.model)
        for piece in self.slices:
            names.extend([] if piece.base_model is None else [piece.base_model])
            names.extend(source.model for source in piece.sources)
        return tuple(dict.fromkeys(names))

    def renamed(self, rename: Callable[[str], str]) -> Recipe:
        """Return the same recipe with each model's name replaced.

        Args:
            rename: Old name → new name; `model_names.by_part` renames model and adapter apart.
        """

        def sources(found: tuple[Source, ...]) -> tuple[Source, ...]:
            return tuple(replace(source, model=rename(source.model)) for source in found)

        slices = tuple(
            replace(
                piece,
                sources=sources(piece.sources),
                base_model=None if piece.base_model is None else rename(piece.base_model),
            )
            for piece in self.slices
        )
        base = None if self.base_model is None else rename(self.base_model)
        vocabulary = None if self.vocabulary is None else self.vocabulary.renamed(rename)
        return replace(
            self,
            models=sources(self.models),
            slices=slices,
            base_model=base,
            vocabulary=vocabulary,
        )
