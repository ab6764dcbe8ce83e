"""Greedy generation of many prompts at once: prompts in chunks, then one step for all at a time.

A step feeds each sequence its last token and, where an earlier candidate's text suggests one, a guess of
what follows. The guess is accepted up to the first token that is not the most likely one, so the text is
that of plain greedy decoding, only sooner.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor
from transformers import LogitsProcessorList

from evomerge.inference.attention import Share
from evomerge.inference.cache import SlotCache
from evomerge.inference.drafts import Drafts, guess
from evomerge.inference.failures import Collapsed, NotFinite
from evomerge.inference.forward import Forward
from evomerge.inference.preambles import Alike, begin_alike
from evomerge.inference.stopping import Stopping, StopRule, Tokens

_STUCK_AFTER = 16
_ENOUGH_PROMPTS = 16
_LONGEST_GUESS = 16  # tokens of one step; a prompt's first guess is as long as the draft
_PATIENCE = 8  # after as many steps in a row without a guess a sequence goes on alone
_USELESS = 4  # as many steps is a guess worth that was wrong at once


@dataclass(frozen=True)
class Prompt:
    """What to continue.

    Attributes:
        tokens: The prompt's.
        rule: When to stop.
        limit: Most tokens to generate.
        truncated: Whether the prompt was cut to the model's context.
    """

    tokens: Tokens
    rule: StopRule
    limit: int
    truncated: bool

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


class _Decoding:
    """The generation of one group; slot i holds the sequence of prompt `owner[i]`."""

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
        self._forward, self._stopping, self._prompts = forward, stopping, prompts
        self._drafts, self._batch_tokens, self._ragged = drafts, batch_tokens, ragged
        self._processors = processors
        self._written: list[Tokens] = [[] for _ in prompts]
        self._strikes = [0 if own else _PATIENCE for own in drafts]
        self._apart = [0 for _ in prompts]  # tokens of a preamble that the cache keeps apart
        rules = list({id(prompt.rule): prompt.rule for prompt in prompts}.values())
        number = {id(rule): index for index, rule in enumerate(rules)}
        self._ends = torch.stack([rule.ends for rule in rules])
        self._may_end = torch.stack([rule.may_end for rule in rules])
        self._rule = torch.tensor([number[id(prompt.rule)] for prompt in prompts])
        self._stuck_checked = False
        # By slot:
        self._owner = list(range(len(prompts)))
        self._length = [len(prompt.tokens) for prompt in prompts]  # tokens in the cache
        self._cache = SlotCache(0, 0)

    def run(self) -> list[Tokens]:
        self._read_prompts()
        self._drop_finished()
        while self._owner:
            guesses = self._guesses()
            slots = [slot for slot, each in enumerate(guesses) if each]
            # Sequences without a guess wait, so that no pass is padded for the sake of a few.
            self._step(slots or list(range(len(self._owner))), guesses)
            self._check_stuck()
            self._drop_finished()
        return self._written

    def _read_prompts(self) -> None:
        """Read prompts, each with its first guess; what many prompts begin with is read once."""
        stems = [prompt.tokens[:-1] if self._ragged else [] for prompt in self._prompts]
        alike = begin_alike(stems)
        first_guess = [
            guess(drafts, [], prompt.limit - 1)
            for drafts, prompt in zip(self._drafts, self._prompts, strict=True)
        ]
        size = [
            len(prompt.tokens) + len(guessed)
            for prompt, guessed in zip(self._prompts, first_guess, strict=True)
        ]
        self._owner = [
            index for each in alike for index in sorted(each.members, key=lambda i: -size[i])
        ]
        self._length = [len(self._prompts[owner].tokens) for owner in self._owner]
        self._cache = SlotCache(len(self._prompts), self._capacity(alike))
        first = 0
        for each in alike:
            slots = list(range(first, first + len(each.members)))
            if each.shared:
                self._read_preamble(slots, self._prompts[self._owner[first]].tokens[: each.shared])
            self._read_rests(slots, each.shared, first_guess)
            first += len(slots)

    def _capacity(self, alike: Sequence[Alike]) -> int:
        longest = max(
            len(self._prompts[index].tokens) - (each.shared if self._forward.cascades else 0)
            for each in alike
            for index in each.members
        )
        return longest + max(prompt.limit for prompt in self._prompts) + _LONGEST_GUESS

    def _read_preamble(self, slots: Sequence[int], tokens: Tokens) -> None:
        preamble = self._forward.read_preamble(torch.tensor([tokens], device=self._forward.device))
        if self._forward.cascades:
            self._cache.attach(slots[0], len(slots), preamble)
            for slot in slots:
                self._apart[self._owner[slot]] = len(tokens)
        else:
            self._cache.spread(slots[0], len(slots), preamble)

    def _read_rests(self, slots: Sequence[int], shared: int, first_guess: Sequence[Tokens]) -> None:
        guesses = [first_guess[self._owner[slot]] for slot in slots]
        fed = [
            self._prompts[self._owner[slot]].tokens[shared:] + guessed
            for slot, guessed in zip(slots, guesses, strict=True)
        ]
        before = (
            shared - self._apart[self._owner[slots[0]]]
        )  # tokens in front of them in their slots
        start = 0
        while start < len(slots):
            stop = start + max(1, self._batch_tokens // len(fed[start]))
            chunk, part = slots[start:stop], fed[start:stop]
            self._cache.fill(chunk[0], before)
            visible = None
            if shared:
                columns = torch.arange(before + len(part[0]), device=self._forward.device)
                visible = (columns <= columns[before:, None])[None, None]
            self._feed(chunk, part, guesses[start:stop], [shared] * len(chunk), visible)
            start = stop
        for slot in slots:
            self._length[slot] -= 1  # what was said last is not in the cache yet

    def _guesses(self) -> list[Tokens]:
        found: list[Tokens] = []
        for owner in self._owner:
            written = self._written[owner]
            most = min(_LONGEST_GUESS, self._prompts[owner].limit - len(written) - 1)
            if self._strikes[owner] >= _PATIENCE or most < 1:
                found.append([])
                continue
            guessed = guess(self._drafts[owner], written, most)
            self._strikes[owner] = 0 if guessed else self._strikes[owner] + 1
            found.append(guessed)
        return found

    def _step(self, slots: Sequence[int], guesses: Sequence[Tokens]) -> None:
        fed = [[self._written[self._owner[slot]][-1], *guesses[slot]] for slot in slots]
        starts = [self._length[slot] for slot in slots]
        apart = [self._apart[self._owner[slot]] for slot in slots]
        kept = [length - before for length, before in zip(starts, apart, strict=True)]
        width = max(map(len, fed))
        first = torch.tensor(kept, device=self._forward.device)
        columns = first[:, None] + torch.arange(width, device=first.device)
        seen = max(kept) + width
        self._cache.extend(columns, seen, None if len(slots) == len(self._owner) else slots)
        visible = None
        if width > 1 or any(apart) or min(kept) < max(kept):
            everything = torch.arange(seen, device=first.device)
            visible = (everything <= columns[:, :, None])[:, None]
        self._feed(slots, fed, [guesses[slot] for slot in slots], starts, visible)

    def _feed(
        self,
        slots: Sequence[int],
        fed: Sequence[Tokens],
        guesses: Sequence[Tokens],
        starts: Sequence[int],
        visible: Tensor | None,
    ) -> None:
        """Run one pass over `fed`, whose last tokens are `guesses`, and write what is accepted."""
        device = self._forward.device
        width = max(map(len, fed))
        tokens = torch.tensor([each + [0] * (width - len(each)) for each in fed], device=device)
        rows = [
            index * width + place
            for index, (each, guessed) in enumerate(zip(fed, guesses, strict=True))
            for place in range(len(each) - len(guessed) - 1, len(each))
        ]
        positions = None
        if visible is not None:
            first_places = torch.tensor(starts, device=device)
            positions = first_places[:, None] + torch.arange(width, device=device)
        logits = self._forward(
            tokens,
            torch.tensor(rows, device=device),
            visible=visible,
            positions=positions,
            cache=self._cache,
            preambles=[
                Share(preamble, None if chosen is None else chosen.to(device))
                for preamble, chosen in self._cache.attached(slots)
            ],
        )
        if self._processors is not None:
            logits = self._processed(slots, guesses, logits, self._processors)
        best = _most_likely(logits)
        rules = torch.repeat_interleave(
            self._rule[[self._owner[slot] for slot in slots]],
            torch.tensor([len(each) + 1 for each in guesses]),
        )
        ends, may_end = self._ends[rules, best].tolist(), self._may_end[rules, best].tolist()
        said = best.tolist()
        first = 0
        for slot, guessed in zip(slots, guesses, strict=True):
            part = slice(first, first + len(guessed) + 1)
            self._accept(slot, guessed, said[part], ends[part], may_end[part])
            first = part.stop

    def _processed(
        self,
        slots: Sequence[int],
        guesses: Sequence[Tokens],
        logits: Tensor,
        processors: LogitsProcessorList,
    ) -> Tensor:
        """Process the logits of each place, given all that stands before it."""
        before = [
            self._prompts[owner].tokens + self._written[owner] + guessed[:place]
            for owner, guessed in zip((self._owner[slot] for slot in slots), guesses, strict=True)
            for place in range(len(guessed) + 1)
        ]
        return torch.cat(
            [
                processors(torch.tensor([tokens], device=row.device), row[None])
                for tokens, row in zip(before, logits.float(), strict=True)
            ]
        )

    def _accept(
        self, slot: int, guessed: Tokens, said: Tokens, ends: list[bool], may_end: list[bool]
    ) -> None:
        owner = self._owner[slot]
        written, prompt = self._written[owner], self._prompts[owner]
        for index, token in enumerate(said):
            written.append(token)
            self._length[slot] += 1
            over = ends[index] or len(written) >= prompt.limit
            if over or (may_end[index] and self._stopping.is_over(written, prompt.rule)):
                self._length[slot] = -1
                return
            if index < len(guessed) and guessed[index] != token:
                self._strikes[owner] += 0 if index else _USELESS
                return

    def _drop_finished(self) -> None:
        """Free the slots of finished sequences: the last ones move into them."""
        left = sum(length >= 0 for length in self._length)
        if left == len(self._owner):
            return
        holes = [slot for slot in range(left) if self._length[slot] < 0]
        movers = [slot for slot in range(left, len(self._owner)) if self._length[slot] >= 0]
        if holes:
            device = self._forward.device
            self._cache.move(
                torch.tensor(movers, device=device), torch.tensor(holes, device=device)
            )
        for hole, mover in zip(holes, movers, strict=True):
            self._owner[hole], self._length[hole] = self._owner[mover], self._length[mover]
        del self._owner[left:], self._length[left:]

    def _check_stuck(self) -> None:
        if self._stuck_checked or min(map(len, self._written)) < _STUCK_AFTER:
            return
        self._stuck_checked = True
        said = {token for written in self._written for token in written[:_STUCK_AFTER]}
        if len(self._prompts) >= _ENOUGH_PROMPTS and len(said) == 1:
            raise Collapsed(
                f"all of the first {len(self._prompts)} prompts are continued by token "
                f"{said.pop()} over and over"
            )


def _most_likely(logits: Tensor) -> Tensor:
    best = logits.max(dim=1)
    if not bool(best.values.isfinite().all()):
        raise NotFinite("the logits are NaN or infinite")
    return best.indices.cpu()
