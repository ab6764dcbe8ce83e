"""The models of a merge: opened, checked to be one family, with the vocabulary of the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from evomerge.candidate import Vocabulary
from evomerge.errors import MergeError
from evomerge.merge.checkpoint import Checkpoint, open_checkpoint
from evomerge.merge.family import check_family
from evomerge.merge.heads import with_heads
from evomerge.merge.layout import Layout
from evomerge.merge.plan import MergePlan
from evomerge.merge.random_vectors import randomised
from evomerge.merge.tokenizer import load_tokenizer
from evomerge.merge.towers import with_towers
from evomerge.merge.vocabulary import OutputVocabulary


@dataclass(frozen=True)
class OpenModels:
    """Open models, of which only headers were read.

    Attributes:
        checkpoints: Every model by its name, the base first.
        vocabulary: How their rows are matched by token; None: they have one vocabulary.
        trust_remote_code: They may run code of their own.
    """

    checkpoints: Mapping[str, Checkpoint]
    vocabulary: OutputVocabulary | None
    trust_remote_code: bool

    @property
    def base(self) -> Checkpoint:
        """The first model."""
        return next(iter(self.checkpoints.values()))

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of what is merged from them: the base's, or as the vocabulary says.

        Raises:
            ModelError: The base has none.
        """
        if self.vocabulary is not None:
            return self.vocabulary.tokenizer
        folder = str(self.base.tokenizer_folder)
        return load_tokenizer(folder, trust_remote_code=self.trust_remote_code)

    def randomised(self, seed: int) -> OpenModels:
        """Return the same models with experts whose task vectors are noise of the same norms.

        Args:
            seed: Draws the noise.

        Raises:
            MergeError: The models are matched by token, so that there is no task vector of each tensor.
        """
        if self.vocabulary is not None:
            raise MergeError("random task vectors need models of one vocabulary")
        base = self.base
        noisy = {
            name: one if one is base else randomised(one, base, f"{seed}/{place}")
            for place, (name, one) in enumerate(self.checkpoints.items())
        }
        return replace(self, checkpoints=noisy)

    def seen(self, plan: MergePlan) -> Mapping[str, Checkpoint]:
        """Return the models as a merge reads them: with their rows matched by token, where that was asked."""
        if self.vocabulary is None:
            return self.checkpoints
        return self.vocabulary.seen(plan, self.checkpoints)


def open_models(
    names: Sequence[str],
    vocabulary: Vocabulary | None = None,
    *,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    depths: bool = False,
) -> OpenModels:
    """Open models and check that they can be merged.

    Args:
        names: As recipes write them, the base first.
        vocabulary: How to match rows by token; None: the models have one vocabulary.
        trust_remote_code: Let the models run code of their own.
        allow_pickle: Accept PyTorch pickles where there is no safetensors file.
        depths: They may have unlike numbers of layers.

    Raises:
        ModelError: A model is missing, damaged, or of another family.
        RecipeError: An override of the vocabulary is wrong.
    """
    code, pickle = trust_remote_code, allow_pickle
    opened = {
        name: open_checkpoint(name, trust_remote_code=code, allow_pickle=pickle)
        for name in dict.fromkeys(names)
    }
    checkpoints = with_heads(with_towers(opened))
    base, *experts = checkpoints.values()
    check_family(
        base,
        experts,
        matched=vocabulary is not None,
        trust_remote_code=code,
        layout_of=Layout.of if depths else None,
    )
    built = None
    if vocabulary is not None:
        built = OutputVocabulary.build(vocabulary, checkpoints, trust_remote_code=code)
    return OpenModels(checkpoints, built, code)
