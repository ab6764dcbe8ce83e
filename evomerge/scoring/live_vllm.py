"""Texts by vLLM, everything else by the resident passes: one scorer, two engines with the same weights.

vLLM takes token ids and gives token ids; what ends a text, and where it is cut, is decided as for the
resident passes, so that both give the same text wherever they find the same most likely tokens.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from torch import nn
from transformers import PretrainedConfig, RepetitionPenaltyLogitsProcessor

from evomerge.candidate.trial import Split
from evomerge.errors import TaskError
from evomerge.inference.engine import Engine
from evomerge.inference.generation import Prompt, check_stuck
from evomerge.inference.stopping import Tokens
from evomerge.scoring.scorer import Scorer
from evomerge.scoring.vllm_engine import (
    LiveVllm,
    Weights,
    check_architecture,
    check_processes,
    check_vllm,
    start,
)
from evomerge.tasks.items import Items

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest

Texts = Mapping[Hashable, Tokens]
"""Key of a prompt → what continues it."""


class LiveEngine(Engine):
    """A resident module with all that its passes need, whose texts vLLM may write.

    Attributes:
        vllm: Holds the module's weights; None: the module writes by itself.
    """

    vllm: LiveVllm | None = None
    texts: Texts | None = None  # of the module, where they were written before its weights

    def write(self, prompts: Sequence[Prompt]) -> list[Tokens]:
        """Continue prompts greedily, as `Engine.write` does and with its errors."""
        if self.texts is not None:
            known = {prompt.key: self.texts[prompt.key] for prompt in prompts}
            check_stuck(list(known.values()))
            return [known[prompt.key] for prompt in prompts]
        if self.vllm is None or not self.serves(prompts):
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

    def write_for(self, asked: Sequence[tuple[LoRARequest, Sequence[Prompt]]]) -> list[Texts]:
        """Let adapters of the base continue prompts, all at once.

        Args:
            asked: Each with its prompts, which `serves` says can be continued.

        Raises:
            RuntimeError: vLLM fails.
            ValueError: vLLM does not take an adapter.
        """
        assert self.vllm is not None
        self.vllm.hold_base(adapter for adapter, _ in asked)
        distinct = [{prompt.key: prompt for prompt in prompts} for _, prompts in asked]
        adapters = [adapter for (adapter, _), own in zip(asked, distinct, strict=True) for _ in own]
        prompts = [prompt for own in distinct for prompt in own.values()]
        found = iter(self._continued(self.vllm, prompts, adapters))
        return [{key: next(found) for key in own} for own in distinct]

    def serves(self, prompts: Sequence[Prompt]) -> bool:
        """Tell whether vLLM continues these, as the module would."""
        if self.vllm is None or not prompts:
            return False
        penalties = all(
            isinstance(one, RepetitionPenaltyLogitsProcessor) for one in self._processors or ()
        )
        longest = max(len(prompt.tokens) + prompt.limit for prompt in prompts)
        return penalties and longest <= self.vllm.max_length

    def _continued(
        self,
        vllm: LiveVllm,
        prompts: Sequence[Prompt],
        adapters: Sequence[LoRARequest] | None = None,
    ) -> list[Tokens]:
        """Let vLLM write until each text is over by our rules; by its own it may stop sooner or later."""
        written: list[Tokens] = [[] for _ in prompts]
        left = list(range(len(prompts)))
        while left:
            found = vllm.generate(
                [prompts[n].tokens + written[n] for n in left],
                [self._parameters(prompts[n], len(written[n])) for n in left],
                None if adapters is None else [adapters[n] for n in left],
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

    def check_model(self, config: PretrainedConfig, gpus: float) -> None:
        """Check that vLLM serves such a model in workers of so many GPUs. Raises TaskError."""
        check_architecture(config)
        check_processes(self.arguments, gpus)

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
        device = next(module.parameters()).device.type
        engine.vllm = LiveVllm(start(arguments, device), weights)

    def asked(
        self, module: nn.Module, split: Split, metrics: Mapping[str, tuple[str, ...]]
    ) -> tuple[list[Prompt], bool]:
        """Return what `score` lets vLLM continue, and whether the module reads anything besides."""
        engine = self.engine(module)
        assert isinstance(engine, LiveEngine)
        found = self._leaf_values(split, self._asked(split, metrics))
        whole = {task: range(len(self._items.ids(task, split))) for task in found}
        parts = self._parts(engine, found, {}, whole)
        prompts = [prompt for part in parts for prompt in part.prompts()]
        reads = any(part.readings(n) for part in parts for n in part.positions)
        return (prompts if engine.serves(prompts) else []), reads

    def write_for(
        self, module: nn.Module, asked: Sequence[tuple[LoRARequest, Sequence[Prompt]]]
    ) -> list[Texts]:
        """Continue what is `asked` by adapters of the base; see `LiveEngine.write_for`."""
        engine = self.engine(module)
        assert isinstance(engine, LiveEngine)
        return engine.write_for(asked)

    @contextmanager
    def given(self, module: nn.Module, texts: Texts | None) -> Iterator[None]:
        """Take texts for what the module would write, whatever its weights are; None: let it write."""
        engine = self.engine(module)
        assert isinstance(engine, LiveEngine)
        engine.texts = texts
        try:
            yield
        finally:
            engine.texts = None

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
