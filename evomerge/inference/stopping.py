"""When a generation ends, found without decoding it again at every token.

HFLM decodes the last tokens of every sequence after every step and looks for every stop string in it. A
stop string can only be completed by a token whose own text holds the string's last character: a table over
the vocabulary, made once, tells such tokens from all others, and those that hold a whole stop string.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

Tokens = list[int]

_UNDECODED = "\ufffd"
_JOINT = 8  # tokens on both sides of a joint that say what stands between


@dataclass(frozen=True)
class StopRule:
    """The stop strings of a request."""

    # As lm-eval hands them over, the end-of-sequence token's text among them
    strings: tuple[str, ...]
    ends: Tensor  # `[V]`, bool: tokens that end a generation, whatever came before
    may_end: Tensor  # `[V]`, bool: tokens that may complete a stop string


class Stopping:
    """Makes and applies the stop rules of one tokenizer.

    Args:
        tokenizer: The model's.
        end_tokens: Tokens at which generation ends anyway.
        vocabulary: Number of logits, V; may exceed the tokenizer's tokens.

    Attributes:
        end_tokens: As given.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, end_tokens: Sequence[int], vocabulary: int
    ) -> None:
        self._tokenizer = tokenizer
        self.end_tokens = tuple(end_tokens)
        self._vocabulary = vocabulary
        self._texts: list[str | None] | None = None
        self._rules: dict[tuple[str, ...], StopRule] = {}

    def rule(self, until: Sequence[str]) -> StopRule:
        """Return the rule of a request's stop strings; HFLM's: the end-of-sequence token's text is added."""
        strings = list(until)
        if self._tokenizer.eos_token_id is not None:
            end = self._tokenizer.decode(self._tokenizer.eos_token_id, skip_special_tokens=False)
            if end not in strings:
                strings.append(end)
        key = tuple(string for string in strings if string)
        if key not in self._rules:
            self._rules[key] = self._make(key)
        return self._rules[key]

    def is_over(self, tokens: Tokens, rule: StopRule) -> bool:
        """Whether generated tokens, decoded, hold a stop string."""
        texts = {
            self._tokenizer.decode(tokens, skip_special_tokens=False),
            self._tokenizer.decode(tokens, skip_special_tokens=True),
        }
        return any(string in text for string in rule.strings for text in texts)

    def length(self, tokens: Tokens, rule: StopRule) -> int | None:
        """Return after how many of these tokens a generation ends; None: it goes on behind the last."""
        ends, may_end = rule.ends[tokens].tolist(), rule.may_end[tokens].tolist()
        for index in range(len(tokens)):
            if ends[index] or (may_end[index] and self.is_over(tokens[: index + 1], rule)):
                return index + 1
        return None

    def text(self, tokens: Tokens, rule: StopRule, behind: Tokens | None = None) -> str:
        """Decode generated tokens and cut at the first stop string, as HFLM does.

        `behind`: the prompt's tokens, for a text that is to stand behind them: many tokenizers decode
        nothing of white space at a text's start.
        """
        text = str(self._tokenizer.decode(tokens, skip_special_tokens=True))
        if behind is not None and text[:1].strip():
            text = self._space(behind[-_JOINT:], tokens[:_JOINT]) + text
        for string in rule.strings:
            text = text.split(string)[0]
        return text

    def ending_tokens(self, rule: StopRule) -> tuple[int, ...]:
        """Return the tokens that end a generation whatever came before, and the stop strings' first ones.

        A stop string of several tokens is taken to have begun with its first.
        """
        found = set(rule.ends.nonzero()[:, 0].tolist())
        for string in rule.strings:
            found.update(self._tokenizer.encode(string, add_special_tokens=False)[:1])
        return tuple(sorted(found))

    def _space(self, before: Tokens, tokens: Tokens) -> str:
        """Return the white space between two texts."""
        first = str(self._tokenizer.decode(before))
        both = str(self._tokenizer.decode([*before, *tokens]))
        found = both[len(first) :] if both.startswith(first) else ""
        return found[: len(found) - len(found.lstrip())]

    def _make(self, strings: tuple[str, ...]) -> StopRule:
        if self._texts is None:
            self._texts = _texts(self._tokenizer)
        ends = torch.zeros(self._vocabulary, dtype=torch.bool)
        may_end = torch.zeros(self._vocabulary, dtype=torch.bool)
        last = {string[-1] for string in strings}
        for token, text in enumerate(self._texts[: self._vocabulary]):
            if text is None or _UNDECODED in text:
                may_end[token] = True
            elif any(string in text for string in strings):
                ends[token] = True
            elif not last.isdisjoint(text):
                may_end[token] = True
        ends[list(self.end_tokens)] = True
        return StopRule(strings, ends, may_end)


def _texts(tokenizer: PreTrainedTokenizerBase) -> list[str | None]:
    """Each token's text behind another token; None where it cannot be told apart."""
    anchor = tokenizer.encode("a", add_special_tokens=False)[-1:]
    base = tokenizer.decode(anchor, skip_special_tokens=False)
    decoded = tokenizer.batch_decode(
        [[*anchor, token] for token in range(len(tokenizer))], skip_special_tokens=False
    )
    return [text[len(base) :] if text.startswith(base) else None for text in decoded]
