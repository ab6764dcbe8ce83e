"""One resident module with all that its passes need: what scorer and lm-eval interface run on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import LogitsProcessorList, PreTrainedTokenizerBase

from evomerge.errors import ModelError
from evomerge.inference.batches import LOGITS_IN_MEMORY, Batch, plan
from evomerge.inference.drafts import Drafts
from evomerge.inference.encoding import Encoder, Reading
from evomerge.inference.forward import Forward, text_config
from evomerge.inference.generation import Prompt, generate
from evomerge.inference.loglikelihood import See, score_batches
from evomerge.inference.processors import processors
from evomerge.inference.sizing import room_of
from evomerge.inference.stopping import StopRule, Tokens

RECURRENT = {"conv", "hybrid", "hybrid_sliding", "linear_attention"}
"""Types of layers that keep a state, as transformers calls them; not every model that has them says so."""


class Engine:
    """Tokenises, plans, reads and writes with one module, whatever its weights have become meanwhile.

    Args:
        module: A causal language model in the interface of transformers, in eval mode.
        tokenizer: Its tokenizer.
        batch_tokens: Most tokens of one forward pass; `auto`: sized from the machine and the model.
        memory: Bytes of the module's device that passes may take; None: half of what is there.
        drafts: What other modules wrote for the same prompts.

    Attributes:
        encoder: Text → tokens, and stop rules.
        plans: Batches that a caller keeps for this module.
        room: How many tokens passes may hold.
        most_reads: Most positions whose logits one pass returns.

    Raises:
        ModelError: The module is recurrent: its state cannot be shared, cut or gone back to.
    """

    def __init__(
        self,
        module: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        batch_tokens: int | Literal["auto"] = "auto",
        memory: int | None = None,
        drafts: Drafts | None = None,
    ) -> None:
        config = getattr(module, "config", None)
        kinds = getattr(text_config(config), "layer_types", None) or ()
        if getattr(module, "_is_stateful", False) or not RECURRENT.isdisjoint(kinds):
            raise ModelError(
                f"{type(module).__name__} is recurrent, which needs lm-eval's own passes; "
                'choose "scorer: {backend: hf}"'
            )
        self._forward = Forward(module)
        ends = _end_tokens(module, tokenizer)
        most = getattr(getattr(module, "generation_config", None), "max_new_tokens", None)
        self.encoder = Encoder(tokenizer, config, ends, self._forward.vocabulary, most)
        self.plans: dict[Hashable, Any] = {}
        self.room = room_of(
            config,
            self._forward.dtype,
            self._forward.device,
            memory=memory,
            batch_tokens=None if batch_tokens == "auto" else batch_tokens,
            share=_share_of_layers(module),
        )
        self.most_reads = max(1, LOGITS_IN_MEMORY // self._forward.vocabulary)
        self._drafts = drafts or Drafts()

    @property
    def vocabulary(self) -> int:
        """Number of logits a position."""
        return self._forward.vocabulary

    def plan(
        self,
        readings: Sequence[Reading],
        *,
        batch_tokens: int | None = None,
        preambles: bool = True,
    ) -> list[Batch]:
        """Lay readings out in batches, for any number of `read`s.

        `batch_tokens`: most tokens of one pass, None: the engine's own; `preambles`: whether what many
        begin with may be computed once and cached.
        """
        return plan(
            readings,
            batch_tokens=batch_tokens or self.room.batch,
            vocabulary=self._forward.vocabulary,
            share=self._forward.takes_masks,
            device=self._forward.device,
            longest_shared=self._forward.window,
            preambles=preambles,
        )

    def read(
        self, batches: Sequence[Batch], count: int, see: See | None = None
    ) -> tuple[Tensor, Tensor]:
        """Score the targets of planned readings, as `score_batches` does."""
        return score_batches(self._forward, batches, count, see, recomputed=self.room.recompute)

    def write(self, prompts: Sequence[Prompt]) -> list[Tokens]:
        """Continue prompts greedily; errors as in `generate`.

        Raises:
            ModelError: The module's generation configuration asks for more than greedy decoding.
        """
        return generate(
            self._forward,
            self.encoder.stopping,
            prompts,
            batch_tokens=self.room.batch,
            cache_tokens=self.room.cached,
            drafts=self._drafts,
            processors=self._processors if prompts else None,
        )

    def continue_by(self, prompts: Sequence[Tokens], count: int) -> None:
        """Continue prompts by so many tokens each, whatever they are, to see how long that takes."""
        nothing = torch.zeros(self.vocabulary, dtype=torch.bool)
        rule = StopRule((), nothing, nothing)
        most = self.encoder.max_length - count
        asked = [Prompt(list(one)[-most:], rule, count, False) for one in prompts]
        with torch.inference_mode():
            generate(
                self._forward,
                self.encoder.stopping,
                asked,
                batch_tokens=self.room.batch,
                cache_tokens=self.room.cached,
            )

    @cached_property
    def _processors(self) -> LogitsProcessorList | None:
        return processors(getattr(self._forward.module, "generation_config", None))


def _share_of_layers(module: nn.Module) -> float:
    """Return what share of a module's layers the device with most of them has."""
    places: dict[str, object] = getattr(module, "hf_device_map", {})
    found = Counter(place for name, place in places.items() if name.rpartition(".")[2].isdigit())
    return max(found.values()) / found.total() if found else 1.0


def _end_tokens(module: nn.Module, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """At which tokens generation ends: the generation configuration's, as in transformers, and EOS."""
    given = getattr(getattr(module, "generation_config", None), "eos_token_id", None)
    ends = given if isinstance(given, list) else [given]
    return tuple({token for token in (*ends, tokenizer.eos_token_id) if token is not None})
