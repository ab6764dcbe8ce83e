"""Text → tokens, exactly as lm-eval's HFLM does it, many texts at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lm_eval.models.utils import resolve_max_length
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from evomerge.errors import TaskError
from evomerge.inference.stopping import Stopping, Tokens


@dataclass(frozen=True)
class Reading:
    """One pass over a sequence, some of whose tokens are scored."""

    tokens: Tokens  # what the model reads
    # What it is to say at the last `len(targets)` positions; `ends` adds one more position
    targets: Tokens
    ends: tuple[int, ...]  # tokens any of which ends the answer; empty: the end is not scored
    group: int  # readings of one group share a prefix
    truncated: bool  # whether the sequence was cut to the model's context

    @property
    def reads(self) -> int:
        """How many positions are scored."""
        return len(self.targets) + bool(self.ends)


class Encoder:
    """A tokenizer with HFLM's rules about special tokens, contexts, truncation and ends.

    Args:
        tokenizer: The model's.
        config: The model's; says how long its context is.
        end_tokens: Tokens at which generation ends.
        vocabulary: Number of logits; may exceed the tokenizer's tokens.
        max_new_tokens: The generation configuration's, which transformers takes before the `max_length` that
            HFLM makes of a task's `max_gen_toks`; None: it has none.

    Attributes:
        stopping: Stop rules.
        key: Equal for models that read and write texts alike.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        config: PretrainedConfig | None,
        end_tokens: Sequence[int] = (),
        vocabulary: int = 0,
        max_new_tokens: int | None = None,
    ) -> None:
        self._tokenizer, self.max_new_tokens = tokenizer, max_new_tokens
        self.max_length = int(resolve_max_length(config, tokenizer, default=2048))
        bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        self.prefix_token = bos if bos is not None else eos
        self.stopping = Stopping(tokenizer, end_tokens, vocabulary)
        self.key = (self.max_length, tuple(sorted(end_tokens)), vocabulary, max_new_tokens)

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """Encode texts as `HFLM.tok_encode` does: no special tokens before a text that starts with one."""
        prefix = "" if self.prefix_token is None else self._tokenizer.decode(self.prefix_token)
        return self._encode(texts, prefix)

    def prompts(self, texts: Sequence[str]) -> list[Tokens]:
        """Encode prompts to be continued, as `HFLM.tok_batch_encode` does with each alone."""
        return self._encode(texts, self._tokenizer.bos_token or "")

    def pairs(
        self, pairs: Sequence[tuple[str, str]], *, empty: bool = False
    ) -> list[tuple[Tokens, Tokens]]:
        """Encode (context, continuation) pairs as `TemplateLM.loglikelihood` does.

        Spaces that end a context are moved to the continuation. An empty context becomes the prefix
        token (BOS, or EOS).

        Raises:
            TaskError: A continuation has no tokens, which only `empty` allows.
        """
        moved = [_move_spaces(context, continuation) for context, continuation in pairs]
        contexts = self.encode([context for context, _ in moved])
        wholes = self.encode([context + continuation for context, continuation in moved])
        bare = self._encode_plain([continuation for context, continuation in pairs if not context])
        bare.reverse()
        encoded = []
        for (context, continuation), context_tokens, whole in zip(
            pairs, contexts, wholes, strict=True
        ):
            if context:
                pair = (context_tokens, whole[len(context_tokens) :])
            else:
                pair = self._behind_prefix(bare.pop())
            if not (pair[1] or empty):
                raise TaskError(
                    f"the continuation {continuation!r} brings no tokens; there is nothing to score"
                )
            encoded.append(pair)
        return encoded

    def answers(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[Tokens, Tokens]]:
        """Encode (prompt, gold answer) pairs: of an answer, what generation behind the prompt has to write.

        As `pairs`, but spaces that end a prompt stay there, unless the tokenizer joins them and the answer.
        """
        encoded = self.pairs(pairs, empty=True)
        ending = [n for n, (prompt, _) in enumerate(pairs) if prompt[-1:].isspace()]
        for n, tokens in zip(ending, self.prompts([pairs[n][0] for n in ending]), strict=True):
            whole = [*encoded[n][0], *encoded[n][1]]
            if whole[: len(tokens)] == tokens:
                encoded[n] = tokens, whole[len(tokens) :]
        return encoded

    def readings(
        self,
        pairs: Sequence[tuple[Tokens, Tokens]],
        groups: Sequence[int],
        ends: Sequence[tuple[int, ...]],
    ) -> list[Reading]:
        """Lay out encoded pairs for scoring; what is too long is cut from the left, as HFLM cuts.

        Args:
            pairs: Encoded contexts and continuations.
            groups: A number for each; pairs of one number are likely to share a prefix.
            ends: For each, the tokens that end the answer, or nothing.
        """
        readings = []
        for (context, continuation), group, end in zip(pairs, groups, ends, strict=True):
            whole = context + continuation
            read = whole[-(self.max_length + 1) :][:-1] if not end else whole[-self.max_length :]
            truncated = len(whole) > self.max_length + (not end)
            targets = continuation[-(len(read) - bool(end)) :] if truncated else continuation
            readings.append(Reading(read, targets, end, group, truncated))
        return readings

    def windows(self, text: str) -> list[tuple[Tokens, Tokens]]:
        """Cut a text into the windows of `HFLM.loglikelihood_rolling`."""
        if self.prefix_token is None:
            raise TaskError("rolling log-likelihood needs a tokenizer with a BOS or EOS token")
        return [
            make_disjoint_window(pair)
            for pair in get_rolling_token_windows(
                token_list=self.encode([text])[0],
                prefix_token=self.prefix_token,
                max_seq_len=self.max_length,
                context_len=1,
            )
        ]

    def _behind_prefix(self, continuation: Tokens) -> tuple[Tokens, Tokens]:
        if self.prefix_token is None:
            raise TaskError("an empty context needs a tokenizer with a BOS or EOS token")
        if continuation[:1] == [self.prefix_token]:
            return continuation[:1], continuation[1:]
        return [self.prefix_token], continuation

    def _encode(self, texts: Sequence[str], prefix: str) -> list[Tokens]:
        plain = [bool(prefix) and text.startswith(prefix) for text in texts]
        bare = self._encode_plain(
            [text for text, is_plain in zip(texts, plain, strict=True) if is_plain]
        )
        rest = [text for text, is_plain in zip(texts, plain, strict=True) if not is_plain]
        special = self._tokenizer(rest)["input_ids"] if rest else []
        sources = {True: iter(bare), False: iter(special)}
        return [next(sources[is_plain]) for is_plain in plain]

    def _encode_plain(self, texts: Sequence[str]) -> list[Tokens]:
        if not texts:
            return []
        return list(self._tokenizer(list(texts), add_special_tokens=False)["input_ids"])


def _move_spaces(context: str, continuation: str) -> tuple[str, str]:
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation
