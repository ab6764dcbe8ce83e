"""Mixed ensembles: every running member reads each token, and their distributions become one.

The members share one cache of `inference.cache`, each in layers of its own: member m's layer l has the number
m · L + l there. So caches, drafts and generation treat a mixed model as they treat any other. (A cache of
transformers' own, which counts tokens when the first member has read them, cannot be shared.)
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from evomerge.candidate import Merge
from evomerge.candidate.ensemble import Ensemble, Over
from evomerge.errors import MergeError
from evomerge.merge.live import LiveModel

_PROBE = (1, 2, 3, 4)


class MixedModel(nn.Module):
    """Several causal language models of one vocabulary as one, in the interface of transformers.

    Attributes:
        mixed: The members; each that runs is asked what the mixed model is asked.
        config: The members', with the layers of all of them.
        generation_config: The first member's.

    Args:
        members: Of one class and size, in evaluation mode; their layers are renumbered.

    Raises:
        MergeError: The class decides by a layer's number what it computes.
    """

    def __init__(self, members: Sequence[PreTrainedModel]) -> None:
        super().__init__()
        self.mixed = nn.ModuleList(members)
        first = members[0]
        self.config, self.generation_config = copy.deepcopy(first.config), first.generation_config
        text = self.config.get_text_config()
        layers = int(text.num_hidden_layers)
        text.num_hidden_layers = layers * len(members)
        for number, member in enumerate(members):
            _number_layers(member, number * layers, layers)
        self.weigh({0: 1.0})

    def weigh(
        self,
        weights: Mapping[int, float],
        over: Over = "probabilities",
        temperature: float = 1.0,
    ) -> None:
        """Say which members run, in which order they are added up, and how they are mixed.

        Args:
            weights: Number of a member → weight; they add up to 1.
            over: As of `candidate.ensemble.Mix`.
            temperature: As there.
        """
        self._weights, self._over, self._temperature = dict(weights), over, temperature

    def get_output_embeddings(self) -> None:
        """Return nothing: each member has a head of its own."""

    def forward(self, **arguments: Any) -> CausalLMOutput:  # noqa: ANN401 - transformers'
        """Return the mixed logits; arguments are those of the members, a cache has to be given."""
        if arguments.get("past_key_values") is None:
            arguments["use_cache"] = False  # of its own a member makes one of too few layers
        found = (self.mixed[number](**arguments).logits for number in self._weights)
        weights = tuple(self._weights.values())
        return CausalLMOutput(logits=mixed(found, weights, self._over, self._temperature))


def mixed(
    logits: Iterable[Tensor],
    weights: Sequence[float],
    over: Over = "probabilities",
    temperature: float = 1.0,
) -> Tensor:
    """Return the logits of the mix of several distributions, float32; of one at temperature 1 its own.

    Over probabilities they are log Σ_m w_m softmax(z_m / T), over logits Σ_m w_m z_m / T.

    Args:
        logits: Of each member, `[..., V]`; one after the other is taken.
        weights: Of each, above 0; they add up to 1.
        over: What is averaged.
        temperature: T.
    """
    total: Tensor | None = None
    for weight, own in zip(weights, logits, strict=True):
        if len(weights) == 1:
            return own if temperature == 1 else own.float() / temperature
        scaled = own.float() / temperature
        if over == "logits":
            part = weight * scaled
            total = part if total is None else total + part
        else:
            part = scaled.log_softmax(-1) + torch.tensor(weight).log()
            total = part if total is None else torch.logaddexp(total, part)
    assert total is not None
    return total


class MixedMembers:
    """Builds mixed ensembles from resident models: each running member has a module, which it keeps.

    Args:
        live: The resident models; its own module is no member's.
    """

    def __init__(self, live: LiveModel) -> None:
        self._live = live
        self._twins: list[LiveModel] = []
        self._texts: list[str | None] = []  # of the merge in each twin
        self._model: MixedModel | None = None

    def build(self, ensemble: Ensemble) -> MixedModel:
        """Return the model of a mixed ensemble, until the next one is built.

        Raises:
            RecipeError: A member is wrong.
            MergeError: A member cannot be built.
        """
        assert ensemble.mix is not None
        running = ensemble.mix.running
        while len(self._twins) < len(running):
            self._twins.append(self._live.twin())
            self._texts.append(None)
            self._model = None
        places = self._written([ensemble.members[name] for name in running])
        if self._model is None:
            self._model = MixedModel([twin.module for twin in self._twins])
        weights = dict.fromkeys(places, 0.0)
        for place, weight in zip(places, running.values(), strict=True):
            weights[place] += weight  # of equal members both
        self._model.weigh(weights, ensemble.mix.over, ensemble.mix.temperature)
        return self._model

    def _written(self, merges: Sequence[Merge]) -> list[int]:
        """Write what is not there yet in the place of what is not needed; return where each merge is."""
        texts = [merge.text() for merge in merges]
        free = [place for place, text in enumerate(self._texts) if text not in texts]
        for merge, text in zip(merges, texts, strict=True):
            if text not in self._texts:
                place = free.pop(0)
                self._texts[place] = None  # what is half written is nothing
                self._twins[place].write(merge)
                self._texts[place] = text
        return [self._texts.index(text) for text in texts]


def _number_layers(member: PreTrainedModel, first: int, layers: int) -> None:
    """Number the layers from `first` on, wherever a cache asks for their numbers."""
    tokens = torch.tensor([_PROBE], device=member.device)
    with torch.no_grad():
        before = member(input_ids=tokens, use_cache=False).logits
        for part in member.modules():
            number = getattr(part, "layer_idx", None)
            if isinstance(number, int):
                part.layer_idx = first + number % layers
        after = member(input_ids=tokens, use_cache=False).logits
    if not torch.equal(before, after):
        raise MergeError(
            f"{type(member).__name__} computes by the number of a layer; its models cannot be mixed"
        )
