"""A resident module as a model of lm-eval's, for `lm_eval.simple_evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from torch import nn
from transformers import PreTrainedTokenizerBase

from evomerge.inference.engine import Engine
from evomerge.inference.generation import Prompt
from evomerge.inference.stopping import Tokens
from evomerge.scoring.tokenised import generation_prompt
from evomerge.tasks.rendering import chat_template
from evomerge.tasks.requested import PromptStyle


class ResidentLM(LM):  # type: ignore[misc]
    """Answers lm-eval's requests as `HFLM` does, in fewer and leaner passes.

    What requests share (few-shot examples, a context with several continuations) is computed once.
    Only greedy generation is offered.

    Args:
        module: A causal language model in the interface of transformers, in eval mode.
        tokenizer: Its tokenizer.
        batch_tokens: Most tokens of one forward pass; `auto`: sized from the machine and the model.

    Raises:
        ModelError: The module is recurrent.
    """

    def __init__(
        self,
        module: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_tokens: int | Literal["auto"] = "auto",
    ) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self._engine = Engine(module, tokenizer, batch_tokens)
        self._device, self._module = next(module.parameters()).device, module

    @property
    def tokenizer_name(self) -> str:
        """The tokenizer's name, by which lm-eval caches requests."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str:
        """Return the tokenizer's template, which lm-eval notes with its results."""
        return str(self.tokenizer.chat_template or "") if chat_template else ""

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Render a conversation as `HFLM.apply_chat_template` does."""
        render = chat_template(self.tokenizer, PromptStyle(apply_chat_template=True))
        return "" if render is None else render(chat_history, add_generation_prompt)

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Return each continuation's log-likelihood, in nats, and whether greedy decoding writes it.

        Raises:
            TaskError: A continuation has no tokens.
            NotFinite: The logits are NaN or infinite.
        """
        contexts: dict[str, int] = {}
        pairs = [(str(each.args[0]), str(each.args[1])) for each in requests]
        groups = [contexts.setdefault(context, len(contexts)) for context, _ in pairs]
        answers = self._read(self._engine.encoder.pairs(pairs), groups)
        return self._answered("loglikelihood", requests, answers)

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Return each text's log-likelihood, in nats, window by window. Raises as `loglikelihood` does."""
        windows = [self._engine.encoder.windows(str(each.args[0])) for each in requests]
        pairs = [pair for each in windows for pair in each]
        answers = iter(self._read(pairs, range(len(pairs))))
        totals = [sum(next(answers)[0] for _ in each) for each in windows]
        return self._answered("loglikelihood_rolling", requests, totals)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Return greedy continuations, cut at the first stop string.

        Raises:
            TaskError: A request samples, or generates more than the context holds.
            NotFinite: The logits are NaN or infinite.
            Collapsed: Every prompt is continued by the same token over and over.
        """
        encoder = self._engine.encoder
        encoded = encoder.prompts([str(each.args[0]) for each in requests])
        prompts: list[Prompt] = [
            generation_prompt(each.task_name or "", tokens, each.args[1], encoder)
            for each, tokens in zip(requests, encoded, strict=True)
        ]
        with torch.inference_mode():
            written = self._engine.write(prompts)
        texts = [
            encoder.stopping.text(tokens, prompt.rule)
            for tokens, prompt in zip(written, prompts, strict=True)
        ]
        return self._answered("generate_until", requests, texts)

    def _read(
        self, pairs: Sequence[tuple[Tokens, Tokens]], groups: Sequence[int]
    ) -> list[tuple[float, bool]]:
        readings = self._engine.encoder.readings(pairs, groups, [()] * len(pairs))
        with torch.inference_mode():
            sums, greedy = self._engine.read(self._engine.plan(readings), len(readings))
        return list(zip(sums.tolist(), greedy.tolist(), strict=True))

    def _answered(self, kind: str, requests: Sequence[Instance], answers: list[Any]) -> list[Any]:
        for request, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial(kind, request.args, answer)
        return answers
