"""The documents of a task, tokenised once for all modules that read alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import count
from typing import Any

from lm_eval.models.utils import normalize_gen_kwargs

from evomerge.candidate.trial import Split
from evomerge.errors import TaskError
from evomerge.inference.encoding import Encoder, Reading
from evomerge.inference.generation import Prompt
from evomerge.inference.loss import Question
from evomerge.inference.preambles import common_length
from evomerge.inference.stopping import Tokens
from evomerge.tasks.items import Items
from evomerge.tasks.rendering import Leaf

_MAX_GENERATED = 256  # HFLM's default
_GREEDY_OPTIONS = {"until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k"}
_groups = count()  # numbers of what is likely to begin alike


class TokenisedLeaf:
    """What is read and written to score the documents of one leaf, each made at its first use.

    Args:
        leaf: The documents.
        encoder: Of the modules to come.

    Attributes:
        writes: Whether a module writes answers to the leaf's requests, or reads them.
    """

    def __init__(self, leaf: Leaf, encoder: Encoder) -> None:
        self.leaf, self._encoder = leaf, encoder
        self._kind = str(leaf.task.OUTPUT_TYPE)
        self.writes = self._kind == "generate_until"

    @cached_property
    def prompts(self) -> list[Prompt]:
        """The prompt of each document of a task that generates.

        Raises:
            TaskError: The task samples, or generates more than the context holds.
        """
        asked = [requests[0] for requests in self.leaf.requests]
        encoded = self._encoder.prompts([str(each.args[0]) for each in asked])
        return [
            generation_prompt(self.leaf.name, tokens, each.args[1], self._encoder)
            for each, tokens in zip(asked, encoded, strict=True)
        ]

    @cached_property
    def requests(self) -> list[list[tuple[Reading, ...]]]:
        """By document and request the readings of a task that is not generated: several for a long text.

        Raises:
            TaskError: A continuation is empty.
        """
        if self._kind == "loglikelihood_rolling":
            return [
                [tuple(_rolling(self._encoder, str(each.args[0]))) for each in requests]
                for requests in self.leaf.requests
            ]
        flat = [each for requests in self.leaf.requests for each in requests]
        groups = [next(_groups) for _ in self.leaf.requests]
        owners = [
            group
            for group, requests in zip(groups, self.leaf.requests, strict=True)
            for _ in requests
        ]
        try:
            pairs = self._encoder.pairs([(str(each.args[0]), str(each.args[1])) for each in flat])
        except TaskError as error:
            raise TaskError(f'task "{self.leaf.name}": {error.message}') from None
        readings = iter(self._encoder.readings(pairs, owners, [()] * len(flat)))
        return [[(next(readings),) for _ in requests] for requests in self.leaf.requests]

    @cached_property
    def contexts(self) -> list[tuple[int, ...]]:
        """Of each document the tokens before its answer: the prompt, or what its choices have in common.

        Of a text that is only read, the token that it begins behind.
        """
        if self.writes:
            return [tuple(prompt.tokens) for prompt in self.prompts]
        chosen = self._kind == "multiple_choice"  # whose requests may be more than the choices
        return [
            _context(requests[: len(self.leaf.choices(document))] if chosen else requests)
            for document, requests in enumerate(self.requests)
        ]

    @cached_property
    def golds(self) -> list[tuple[Reading, ...]]:
        """The readings of each document's gold answer; none without an answer, or without its tokens."""
        if self.writes:
            return self._gold_texts()
        return [
            () if gold is None else requests[gold.choices[0]]
            for gold, requests in zip(self.leaf.golds, self.requests, strict=True)
        ]

    @cached_property
    def questions(self) -> list[Question | None]:
        """One for each document with a gold answer; None where the answer has no tokens."""
        return [
            self._question(document)
            for document, gold in enumerate(self.leaf.golds)
            if gold is not None
        ]

    def _question(self, document: int) -> Question | None:
        own = self.golds[document]
        tokens = sum(len(each.targets) for each in own)
        if not tokens:
            return None
        if self._kind == "multiple_choice":
            right = self.leaf.choices(document)
            choices = [reading for (reading,) in self.requests[document][: len(right)]]
            return Question(tuple(choices), tuple(right))
        if self._kind == "loglikelihood_rolling":
            return Question(own, scale=1 / tokens, is_answer=False)
        return Question(own)

    def _gold_texts(self) -> list[tuple[Reading, ...]]:
        texts = {
            document: gold.text
            for document, gold in enumerate(self.leaf.golds)
            if gold is not None and gold.text is not None
        }
        encoded = zip(texts, self._encoder.answers(list(texts.values())), strict=True)
        pairs = {document: pair for document, pair in encoded if pair[1]}
        ends = []
        for document, (_, answer) in pairs.items():
            options = _options(self.leaf.name, self.leaf.requests[document][0].args[1])
            rule = self._encoder.stopping.rule(options["until"])
            # Generation that reaches its limit needs no end.
            complete = len(answer) >= (self._encoder.max_new_tokens or int(options["max_gen_toks"]))
            ends.append(() if complete else self._encoder.stopping.ending_tokens(rule))
        groups = [next(_groups) for _ in pairs]
        readings = self._encoder.readings(list(pairs.values()), groups, ends)
        found = dict(zip(pairs, readings, strict=True))
        return [
            (found[document],) if document in found else ()
            for document in range(len(self.leaf.docs))
        ]


class TokenisedPrompts:
    """The prompts of every split's items, as `kinds.ItemPrompts` has them."""

    def __init__(self, items: Items, tokenised: Callable[[Leaf], TokenisedLeaf]) -> None:
        self._items, self._tokenised = items, tokenised

    def tokens(self, split: Split) -> Mapping[str, list[tuple[int, ...]]]:
        """Return task → of each item the tokens before its answer, in the order of `Items.ids`."""
        return {
            task: [
                context
                for leaf in self._items.leaves(task, split)
                for context in self._tokenised(leaf).contexts
            ]
            for task in self._items.tasks
        }


def _context(requests: Sequence[tuple[Reading, ...]]) -> tuple[int, ...]:
    """Return what stands before the first scored token, as far as all requests have it in common."""
    before = [each[0].tokens[: len(each[0].tokens) - len(each[0].targets) + 1] for each in requests]
    shared = min(common_length(before[0], each) for each in before)
    return tuple(before[0][:shared] or before[0])


def generation_prompt(task: str, tokens: Tokens, given: dict[str, Any], encoder: Encoder) -> Prompt:
    """Make a prompt of a request's tokens, cut from the left as HFLM cuts, and its generation options.

    Raises:
        TaskError: The request samples, has unknown options, or generates more than the context holds.
    """
    options = _options(task, given)
    limit = int(options["max_gen_toks"])
    room = encoder.max_length - limit
    if room <= 0:
        raise TaskError(
            f'task "{task}" generates up to {limit} tokens, but the model\'s context '
            f"is {encoder.max_length}; lower max_gen_toks in generation_kwargs"
        )
    rule = encoder.stopping.rule(options["until"])
    return Prompt(tokens[-room:], rule, encoder.max_new_tokens or limit, len(tokens) > room)


def _rolling(encoder: Encoder, text: str) -> Sequence[Reading]:
    windows = encoder.windows(text)
    return encoder.readings(windows, [next(_groups) for _ in windows], [()] * len(windows))


def _options(task: str, given: dict[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = dict(normalize_gen_kwargs(given, _MAX_GENERATED))
    unknown = sorted(set(options) - _GREEDY_OPTIONS)
    if unknown:
        raise TaskError(
            f'task "{task}": generation_kwargs has {", ".join(unknown)}; '
            f"known: {', '.join(sorted(_GREEDY_OPTIONS))}"
        )
    if options["do_sample"]:
        raise TaskError(
            f'task "{task}" samples (do_sample, temperature > 0 in generation_kwargs); '
            "only greedy generation is scored"
        )
    return options
