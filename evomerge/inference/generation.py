"""Greedy generation of many prompts at once: prompts in chunks, then one step for all at a time.

A step feeds each sequence its last token and, where an earlier candidate's text suggests one, a guess of
what follows. The guess is accepted up to the first token that is not the most likely one, so the text is
that of plain greedy decoding, only sooner.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import Tensor
from transformers import LogitsProcessorList

from evomerge.inference.attention import Share
from evomerge.inference.cache import SlotCache
from evomerge.inference.drafts import Drafts, guess
from evomerge.inference.failures import Collapsed, NotFinite
from evomerge.inference.forward import Forward
from evomerge.inference.preambles import begin_alike
from evomerge.inference.stopping import Stopping, StopRule, Tokens

_STUCK_AFTER = 16
_ENOUGH_PROMPTS = 16
_LONGEST_GUESS = 16  # tokens of one step; a prompt's first guess is as long as the draft
_PATIENCE = 8  # after as many steps in a row without a guess a sequence goes on alone
_USELESS = 4  # as many steps is a guess worth that was wrong at once


@dataclass(frozen=True)
class Prompt:
    """What to continue."""

    tokens: Tokens  # the prompt's
    rule: StopRule  # when to stop
    limit: int  # most tokens to generate
    truncated: bool  # whether the prompt was cut to the model's context

    @property
    def key(self) -> Hashable:
        """Equal for prompts that are continued alike."""
        return (tuple(self.tokens), self.rule.strings, self.limit)


def generate(
    forward: Forward,
    stopping: Stopping,
    prompts: Sequence[Prompt],
    *,
    batch_tokens: int,
    cache_tokens: int,
    drafts: Drafts | None = None,
    processors: LogitsProcessorList | None = None,
) -> list[Tokens]:
    """Continue every prompt greedily until its stop rule, or its limit.

    Args:
        forward: The module.
        stopping: Decodes what may complete a stop string.
        prompts: What to continue; equal prompts are continued once.
        batch_tokens: Most tokens of one forward pass over prompts.
        cache_tokens: Most tokens whose keys and values are kept at once.
        drafts: What was written for the same prompts before; what is written now is added. They
            change how fast the answer comes, never the answer.
        processors: What is done to a sequence's logits before the most likely token is taken.

    Returns:
        The generated tokens of each prompt, those that end it among them.

    Raises:
        NotFinite: A logit that is read is NaN or infinite.
        Collapsed: Every one of many prompts is continued by the same token over and over.
    """
    keys = [prompt.key for prompt in prompts]
    distinct = dict(zip(keys, prompts, strict=True))
    order = sorted(distinct, key=lambda key: -len(distinct[key].tokens))
    known = drafts or Drafts()
    written: dict[Hashable, Tokens] = {}
    ragged = forward.takes_masks and _fits_window(forward, prompts)
    for group in _groups([distinct[key] for key in order], cache_tokens, ragged):
        guesses = [known.of(prompt.key) if ragged else () for prompt in group]
        decoding = _Decoding(forward, stopping, group, guesses, batch_tokens, ragged, processors)
        made = decoding.run()
        written.update((prompt.key, tokens) for prompt, tokens in zip(group, made, strict=True))
    for key in order:
        known.add(key, written[key])
    return [written[key] for key in keys]


def _fits_window(forward: Forward, prompts: Sequence[Prompt]) -> bool:
    longest = max((len(prompt.tokens) + prompt.limit for prompt in prompts), default=0)
    return forward.window is None or longest <= forward.window


def _groups(
    prompts: Sequence[Prompt], cache_tokens: int, ragged: bool
) -> Iterator[Sequence[Prompt]]:
    """Cut prompts, longest first, into groups whose keys and values fit; of one length unless `ragged`."""
    if not ragged:
        for _, same in groupby(prompts, key=lambda prompt: len(prompt.tokens)):
            yield from _groups(list(same), cache_tokens, True)
        return
    start = 0
    while start < len(prompts):
        capacity = len(prompts[start].tokens) + max(prompt.limit for prompt in prompts[start:])
        stop = start + max(1, cache_tokens // capacity)
        yield prompts[start:stop]
        start = stop


@dataclass
class _Sequence:
    """A prompt that is being continued."""

    prompt: Prompt  # what is continued
    drafts: Sequence[Tokens]  # what may be written, by earlier candidates
    strikes: int  # steps without a useful guess; from `_PATIENCE` on none is made
    written: Tokens = field(default_factory=list)  # what is generated
    cached: int = 0  # tokens whose keys and values are there
    apart: int = 0  # how many of those are a preamble's that the cache keeps apart
    over: bool = False  # whether it has ended

    @property
    def first_guess(self) -> Tokens:
        return guess(self.drafts, [], self.prompt.limit - 1)


class _Decoding:
    """The generation of one group; slot i of the cache holds the sequence `live[i]`."""

    def __init__(
        self,
        forward: Forward,
        stopping: Stopping,
        prompts: Sequence[Prompt],
        drafts: Sequence[Sequence[Tokens]],
        batch_tokens: int,
        ragged: bool,
        processors: LogitsProcessorList | None,
    ) -> None:
        self._forward, self._stopping = forward, stopping
        self._batch_tokens, self._ragged, self._processors = batch_tokens, ragged, processors
        self._all = [
            _Sequence(prompt, own, 0 if own else _PATIENCE)
            for prompt, own in zip(prompts, drafts, strict=True)
        ]
        self._live = self._all
        rules = list({id(prompt.rule): prompt.rule for prompt in prompts}.values())
        self._rule = {id(rule): index for index, rule in enumerate(rules)}
        self._ends = torch.stack([rule.ends for rule in rules])
        self._may_end = torch.stack([rule.may_end for rule in rules])
        self._stuck_checked = False
        self._cache = SlotCache(0, 0)

    def run(self) -> list[Tokens]:
        self._read_prompts()
        self._drop_finished()
        while self._live:
            guesses = [self._guess(sequence) for sequence in self._live]
            slots = [slot for slot, each in enumerate(guesses) if each]
            # Sequences without a guess wait, so that no pass is padded for the sake of a few.
            self._step(slots or slice(0, len(self._live)), guesses)
            self._check_stuck()
            self._drop_finished()
        return [sequence.written for sequence in self._all]

    def _read_prompts(self) -> None:
        """Read prompts, each with its first guess; what many prompts begin with is read once."""
        alike = begin_alike([each.prompt.tokens[:-1] if self._ragged else [] for each in self._all])
        groups = [
            sorted(
                (self._all[index] for index in each.members),
                key=lambda one: -len(one.prompt.tokens) - len(one.first_guess),
            )
            for each in alike
        ]
        self._live = [sequence for group in groups for sequence in group]
        longest = max(
            len(sequence.prompt.tokens) - (each.shared if self._forward.cascades else 0)
            for each, group in zip(alike, groups, strict=True)
            for sequence in group
        )
        most = max(each.prompt.limit for each in self._all)
        self._cache = SlotCache(len(self._all), longest + most + _LONGEST_GUESS)
        first = 0
        for each, group in zip(alike, groups, strict=True):
            if each.shared:
                self._read_preamble(first, group, group[0].prompt.tokens[: each.shared])
            self._read_rests(first, group, each.shared)
            first += len(group)

    def _read_preamble(self, first: int, group: Sequence[_Sequence], tokens: Tokens) -> None:
        preamble = self._forward.read_preamble(torch.tensor([tokens], device=self._forward.device))
        slots = slice(first, first + len(group))
        if not self._forward.cascades:
            self._cache.spread(slots, preamble)
            return
        self._cache.attach(slots, preamble)
        for sequence in group:
            sequence.apart = len(tokens)

    def _read_rests(self, first: int, group: Sequence[_Sequence], shared: int) -> None:
        start = 0
        while start < len(group):
            width = len(group[start].prompt.tokens) - shared + len(group[start].first_guess)
            chunk = group[start : start + max(1, self._batch_tokens // width)]
            guesses = [sequence.first_guess for sequence in chunk]
            fed = [
                sequence.prompt.tokens[shared:] + guessed
                for sequence, guessed in zip(chunk, guesses, strict=True)
            ]
            for sequence in chunk:
                sequence.cached = shared
            slots = slice(first + start, first + start + len(chunk))
            self._feed(slots, fed, guesses, causal=not shared)
            for sequence in chunk:
                sequence.cached += len(sequence.prompt.tokens) - shared - 1
            start += len(chunk)

    def _guess(self, sequence: _Sequence) -> Tokens:
        most = min(_LONGEST_GUESS, sequence.prompt.limit - len(sequence.written) - 1)
        if sequence.strikes >= _PATIENCE or most < 1:
            return []
        guessed = guess(sequence.drafts, sequence.written, most)
        sequence.strikes = 0 if guessed else sequence.strikes + 1
        return guessed

    def _step(self, slots: slice | list[int], guesses: Sequence[Tokens]) -> None:
        chosen = range(len(self._live))[slots] if isinstance(slots, slice) else slots
        fed = [[self._live[slot].written[-1], *guesses[slot]] for slot in chosen]
        self._feed(slots, fed, [guesses[slot] for slot in chosen], causal=False)

    def _feed(
        self,
        slots: slice | list[int],
        fed: Sequence[Tokens],
        guesses: Sequence[Tokens],
        *,
        causal: bool,
    ) -> None:
        """Run one pass over `fed`, one list a slot that ends with its guess, and write what is accepted.

        `causal`: all start at the first column, so that no mask is needed.
        """
        device = self._forward.device
        chosen = self._live[slots] if isinstance(slots, slice) else [self._live[i] for i in slots]
        width = max(map(len, fed))
        kept = [sequence.cached - sequence.apart for sequence in chosen]
        seen = max(kept) + width
        columns = torch.tensor(kept, device=device)[:, None] + torch.arange(width, device=device)
        self._cache.extend(slots, columns, seen)
        visible = positions = None
        apart = any(sequence.apart for sequence in chosen)
        if not causal and (width > 1 or apart or min(kept) < max(kept)):
            everything = torch.arange(seen, device=device)
            visible = (everything <= columns[:, :, None])[:, None]
            positions = columns + torch.tensor(
                [[sequence.apart] for sequence in chosen], device=device
            )
        rows = [
            index * width + place
            for index, (each, guessed) in enumerate(zip(fed, guesses, strict=True))
            for place in range(len(each) - len(guessed) - 1, len(each))
        ]
        logits = self._forward(
            torch.tensor([each + [0] * (width - len(each)) for each in fed], device=device),
            torch.tensor(rows, device=device),
            visible=visible,
            positions=positions,
            cache=self._cache,
            preambles=[
                Share(preamble, None if some is None else some.to(device))
                for preamble, some in self._cache.attached(slots)
            ],
        )
        if self._processors is not None:
            logits = _processed(chosen, guesses, logits, self._processors)
        self._write(chosen, guesses, _most_likely(logits))

    def _write(self, chosen: Sequence[_Sequence], guesses: Sequence[Tokens], best: Tensor) -> None:
        rules = torch.tensor(
            [
                self._rule[id(sequence.prompt.rule)]
                for sequence, guessed in zip(chosen, guesses, strict=True)
                for _ in range(len(guessed) + 1)
            ]
        )
        said = zip(
            best.tolist(),
            self._ends[rules, best].tolist(),
            self._may_end[rules, best].tolist(),
            strict=True,
        )
        for sequence, guessed in zip(chosen, guesses, strict=True):
            self._accept(sequence, guessed, [next(said) for _ in range(len(guessed) + 1)])

    def _accept(
        self, sequence: _Sequence, guessed: Tokens, said: Sequence[tuple[int, bool, bool]]
    ) -> None:
        """Write tokens (each with whether it ends, or may end) up to the first that was not guessed."""
        written, prompt = sequence.written, sequence.prompt
        for index, (token, ends, may_end) in enumerate(said):
            written.append(token)
            sequence.cached += 1
            over = ends or len(written) >= prompt.limit
            if over or (may_end and self._stopping.is_over(written, prompt.rule)):
                sequence.over = True
                return
            if index < len(guessed) and guessed[index] != token:
                sequence.strikes += 0 if index else _USELESS
                return

    def _drop_finished(self) -> None:
        """Free the slots of finished sequences: the last ones move into them."""
        left = sum(not sequence.over for sequence in self._live)
        holes = [slot for slot in range(left) if self._live[slot].over]
        movers = [slot for slot in range(left, len(self._live)) if not self._live[slot].over]
        if holes:
            device = self._forward.device
            self._cache.move(
                torch.tensor(movers, device=device), torch.tensor(holes, device=device)
            )
        live = self._live[:left]
        for hole, mover in zip(holes, movers, strict=True):
            live[hole] = self._live[mover]
        self._live = live

    def _check_stuck(self) -> None:
        if not self._stuck_checked:
            self._stuck_checked = check_stuck([each.written for each in self._all])


def check_stuck(written: Sequence[Tokens]) -> bool:
    """Check that prompts are not all continued by one token over and over.

    Args:
        written: What continues each prompt, so far.

    Returns:
        Whether that could be told: every text is long enough.

    Raises:
        Collapsed: Many prompts are, and all alike.
    """
    if min((len(tokens) for tokens in written), default=0) < _STUCK_AFTER:
        return False
    said = {token for tokens in written for token in tokens[:_STUCK_AFTER]}
    if len(written) >= _ENOUGH_PROMPTS and len(said) == 1:
        raise Collapsed(
            f"all of the first {len(written)} prompts are continued by token {said.pop()} over and over"
        )
    return True


def _processed(
    chosen: Sequence[_Sequence],
    guesses: Sequence[Tokens],
    logits: Tensor,
    processors: LogitsProcessorList,
) -> Tensor:
    """Process the logits of each place, given all that stands before it."""
    before = [
        sequence.prompt.tokens + sequence.written + guessed[:place]
        for sequence, guessed in zip(chosen, guesses, strict=True)
        for place in range(len(guessed) + 1)
    ]
    return torch.cat(
        [
            processors(torch.tensor([tokens], device=row.device), row[None])
            for tokens, row in zip(before, logits.float(), strict=True)
        ]
    )


def _most_likely(logits: Tensor) -> Tensor:
    best = logits.max(dim=1)
    if not bool(best.values.isfinite().all()):
        raise NotFinite("the logits are NaN or infinite")
    return best.indices.cpu()
