"""Greedy generation of many prompts at once: prompts in chunks, then one token for all at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from evomerge.score.cache import SlotCache
from evomerge.score.encoding import Tokens
from evomerge.score.failures import Collapsed, NotFinite
from evomerge.score.forward import Forward
from evomerge.score.stopping import Stopping, StopRule

_STUCK_AFTER = 16
_ENOUGH_PROMPTS = 16


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


def generate(
    forward: Forward,
    stopping: Stopping,
    prompts: Sequence[Prompt],
    *,
    batch_tokens: int,
    cache_tokens: int,
) -> list[Tokens]:
    """Continue every prompt greedily until its stop rule, or its limit.

    Args:
        forward: The module.
        stopping: Decodes what may complete a stop string.
        prompts: What to continue; equal prompts are continued once.
        batch_tokens: Most tokens of one forward pass over prompts.
        cache_tokens: Most tokens whose keys and values are kept at once.

    Returns:
        The generated tokens of each prompt, those that end it among them.

    Raises:
        NotFinite: A logit that is read is NaN or infinite.
        Collapsed: Every one of many prompts is continued by the same token over and over.
    """
    keys = [(tuple(prompt.tokens), prompt.rule.strings, prompt.limit) for prompt in prompts]
    distinct = dict(zip(keys, prompts, strict=True))
    order = sorted(distinct, key=lambda key: -len(key[0]))
    written: dict[object, Tokens] = {}
    ragged = forward.takes_masks and _fits_window(forward, prompts)
    for group in _groups([distinct[key] for key in order], cache_tokens, ragged):
        made = _Decoding(forward, stopping, group, batch_tokens).run()
        written.update(zip(order[len(written) : len(written) + len(group)], made, strict=True))
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
        self, forward: Forward, stopping: Stopping, prompts: Sequence[Prompt], batch_tokens: int
    ) -> None:
        self._forward, self._stopping, self._prompts = forward, stopping, prompts
        self._batch_tokens = batch_tokens
        device = forward.device
        rules = list({id(prompt.rule): prompt.rule for prompt in prompts}.values())
        number = {id(rule): index for index, rule in enumerate(rules)}
        self._ends = torch.stack([rule.ends for rule in rules]).to(device)
        self._may_end = torch.stack([rule.may_end for rule in rules]).to(device)
        self._rule = torch.tensor([number[id(prompt.rule)] for prompt in prompts], device=device)
        self._limit = torch.tensor([prompt.limit for prompt in prompts], device=device)
        self._length = torch.tensor([len(prompt.tokens) for prompt in prompts], device=device)
        self._owner = torch.arange(len(prompts), device=device)
        most = max(prompt.limit for prompt in prompts)
        self._written = torch.zeros(len(prompts), most, dtype=torch.int64, device=device)
        self._count = [0] * len(prompts)
        self._cache = SlotCache(len(prompts), len(prompts[0].tokens) + most)

    def run(self) -> list[Tokens]:
        token = self._read_prompts()
        step = 0
        while True:
            self._written[self._owner, step] = token
            step += 1
            if step == _STUCK_AFTER:
                self._check_stuck()
            done = self._done(token, step)
            if done is not None:
                token = self._drop(done, token, step)
            if not len(token):
                break
            token = self._next(token)
        written = self._written.tolist()
        return [row[:count] for row, count in zip(written, self._count, strict=True)]

    def _read_prompts(self) -> Tensor:
        first, tokens = 0, []
        while first < len(self._prompts):
            width = len(self._prompts[first].tokens)
            chunk = self._prompts[first : first + max(1, self._batch_tokens // width)]
            padded = torch.zeros(len(chunk), width, dtype=torch.int64)
            for row, prompt in zip(padded, chunk, strict=True):
                row[: len(prompt.tokens)] = torch.tensor(prompt.tokens)
            ends = torch.tensor([len(prompt.tokens) - 1 for prompt in chunk])
            rows = torch.arange(len(chunk)) * width + ends
            self._cache.fill(first)
            device = self._forward.device
            logits = self._forward(padded.to(device), rows.to(device), cache=self._cache)
            tokens.append(_most_likely(logits))
            first += len(chunk)
        return torch.cat(tokens)

    def _next(self, token: Tensor) -> Tensor:
        seen = int(self._length.max())
        self._cache.extend(self._length, seen)
        columns = torch.arange(seen + 1, device=token.device)
        uniform = bool((self._length == seen).all())
        logits = self._forward(
            token[:, None],
            torch.arange(len(token), device=token.device),
            visible=None if uniform else (columns <= self._length[:, None])[:, None, None],
            positions=self._length[:, None],
            cache=self._cache,
        )
        self._length = self._length + 1
        return _most_likely(logits)

    def _done(self, token: Tensor, step: int) -> Tensor | None:
        """Which slots are finished; None: none is."""
        done = self._ends[self._rule, token] | (self._limit <= step)
        for slot in (self._may_end[self._rule, token] & ~done).nonzero()[:, 0].tolist():
            owner = int(self._owner[slot])
            tokens = self._written[owner, :step].tolist()
            done[slot] = self._stopping.is_over(tokens, self._prompts[owner].rule)
        return done if bool(done.any()) else None

    def _drop(self, done: Tensor, token: Tensor, step: int) -> Tensor:
        """Free the slots of finished sequences: the last ones move into them."""
        for owner in self._owner[done].tolist():
            self._count[owner] = step
        left = int((~done).sum())
        holes = done[:left].nonzero()[:, 0]
        movers = (~done[left:]).nonzero()[:, 0] + left
        order = torch.arange(left, device=token.device)
        order[holes] = movers
        if len(holes):
            self._cache.move(movers, holes)
        self._rule, self._limit = self._rule[order], self._limit[order]
        self._length, self._owner = self._length[order], self._owner[order]
        return token[order]

    def _check_stuck(self) -> None:
        written = self._written[:, :_STUCK_AFTER]
        everyone = len(self._owner) == len(self._prompts) >= _ENOUGH_PROMPTS
        if everyone and bool((written == written[0, 0]).all()):
            raise Collapsed(
                f"all of the first {len(self._prompts)} prompts are continued by token "
                f"{int(written[0, 0])} over and over"
            )


def _most_likely(logits: Tensor) -> Tensor:
    best = logits.max(dim=1)
    if not bool(best.values.isfinite().all()):
        raise NotFinite("the logits are NaN or infinite")
    return best.indices
