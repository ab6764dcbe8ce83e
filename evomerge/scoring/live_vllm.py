"""Texts by vLLM, everything else by the resident passes: one scorer, two engines with the same weights.

vLLM takes token ids and gives token ids; what ends a text, and where it is cut, is decided as for the
resident passes, so that both give the same text wherever they find the same most likely tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from torch import nn
from transformers import PretrainedConfig, RepetitionPenaltyLogitsProcessor

from evomerge.errors import TaskError
from evomerge.inference.engine import Engine
from evomerge.inference.generation import Prompt, check_stuck
from evomerge.inference.stopping import Tokens
from evomerge.scoring.scorer import Scorer
from evomerge.scoring.vllm_engine import (
    LiveVllm,
    Weights,
    check_architecture,
    check_vllm,
    start,
)
from evomerge.tasks.items import Items

if TYPE_CHECKING:
    from vllm import SamplingParams


class LiveEngine(Engine):
    """A resident module with all that its passes need, whose texts vLLM may write.

    Attributes:
        vllm: Holds the module's weights; None: the module writes by itself.
    """

    vllm: LiveVllm | None = None

    def write(self, prompts: Sequence[Prompt]) -> list[Tokens]:
        """Continue prompts greedily, as `Engine.write` does and with its errors."""
        if self.vllm is None or not prompts or not self._serves(self.vllm, prompts):
            return super().write(prompts)
        distinct = {prompt.key: prompt for prompt in prompts}
        asked = list(distinct.values())
        if self.vllm.follow():  # weights that are NaN make logits that are
            shortest = min(asked, key=lambda prompt: len(prompt.tokens))
            super().write([replace(shortest, limit=1)])
        found = self._continued(self.vllm, asked)
        check_stuck(found)
        written = dict(zip(distinct, found, strict=True))
        return [written[prompt.key] for prompt in prompts]

    def _serves(self, vllm: LiveVllm, prompts: Sequence[Prompt]) -> bool:
        penalties = all(
            isinstance(one, RepetitionPenaltyLogitsProcessor) for one in self._processors or ()
        )
        longest = max(len(prompt.tokens) + prompt.limit for prompt in prompts)
        return penalties and longest <= vllm.max_length

    def _continued(self, vllm: LiveVllm, prompts: Sequence[Prompt]) -> list[Tokens]:
        """Let vLLM write until each text is over by our rules; by its own it may stop sooner or later."""
        written: list[Tokens] = [[] for _ in prompts]
        left = list(range(len(prompts)))
        while left:
            found = vllm.generate(
                [prompts[n].tokens + written[n] for n in left],
                [self._parameters(prompts[n], len(written[n])) for n in left],
            )
            unfinished = []
            for n, tokens in zip(left, found, strict=True):
                written[n] += tokens
                length = self.encoder.stopping.length(written[n], prompts[n].rule)
                if length is not None:
                    del written[n][length:]
                elif len(written[n]) < prompts[n].limit:
                    unfinished.append(n)
            left = unfinished
        return written

    def _parameters(self, prompt: Prompt, written: int) -> SamplingParams:
        from vllm import SamplingParams

        config = getattr(self._forward.module, "generation_config", None)
        return SamplingParams(
            temperature=0.0,
            max_tokens=prompt.limit - written,
            repetition_penalty=float(getattr(config, "repetition_penalty", None) or 1.0),
            stop=list(prompt.rule.strings),
            stop_token_ids=list(self.encoder.stopping.end_tokens),
            ignore_eos=True,  # those are all that end a text
            skip_special_tokens=False,
        )


class VllmScorer(Scorer):
    """Scores modules as `Scorer` does; the texts of one of them, once `serve` is called, are vLLM's.

    Args:
        items: As of `Scorer`, as are `batch_tokens` and `memory`.
        batch_tokens: Most tokens of one forward pass of the module.
        memory: Bytes of its device that its passes may take.
        arguments: Engine arguments of vLLM.

    Attributes:
        arguments: As given.

    Raises:
        TaskError: vLLM is missing or too old, or does not know an argument.
    """

    def __init__(
        self,
        items: Items,
        *,
        batch_tokens: int | Literal["auto"] = "auto",
        memory: int | None = None,
        **arguments: Any,  # noqa: ANN401 - vLLM's
    ) -> None:
        check_vllm(arguments)
        super().__init__(items, batch_tokens=batch_tokens, memory=memory)
        self.arguments: Mapping[str, Any] = arguments

    def check_model(self, config: PretrainedConfig) -> None:
        """Check that vLLM serves such a model. Raises TaskError."""
        check_architecture(config)

    def serve(self, module: nn.Module, weights: Weights, defaults: Mapping[str, Any]) -> None:
        """Start vLLM for the texts of a module; nothing is started where no item is answered by a text.

        Args:
            module: The live one.
            weights: What it holds, for vLLM.
            defaults: Engine arguments; the user's, which the constructor got, come before them.

        Raises:
            TaskError: vLLM refuses, or `max_model_len` is less than the longest prompt and its answer.
        """
        engine = self.engine(module)
        assert isinstance(engine, LiveEngine)
        longest = self._longest(engine)
        if not longest:
            return
        arguments = {"max_model_len": longest, **defaults, **self.arguments}
        if arguments["max_model_len"] < longest:
            raise TaskError(
                f"found {arguments['max_model_len']}, expected {longest} or more: the longest prompt and "
                "its answer",
                field="scorer.args.max_model_len",
            )
        engine.vllm = LiveVllm(start(arguments), weights)

    def _engine_of(self, module: nn.Module) -> Engine:
        return LiveEngine(
            module, self._items.tokenizer, self._batch_tokens, self._memory, self._drafts
        )

    def _longest(self, engine: Engine) -> int:
        """Return the most tokens of a prompt and its answer; 0: nothing is written."""
        leaves = [
            self.tokenised(engine.encoder, leaf)
            for split in self._items.splits
            for task in self._items.tasks
            for leaf in self._items.leaves(task, split)
        ]
        prompts = [prompt for leaf in leaves if leaf.writes for prompt in leaf.prompts]
        return max((len(prompt.tokens) + prompt.limit for prompt in prompts), default=0)
