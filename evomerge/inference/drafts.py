"""What earlier candidates wrote for the same prompts: guesses, for the next one to verify.

Relatives mostly write the same. A guess is only ever verified, never trusted: greedy decoding accepts it
token by token as long as each is the most likely one, so whatever is kept here, the text is the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence

from evomerge.inference.stopping import Tokens

_OVERLAP = (
    4  # tokens that a draft must have in common with what is written for it to be taken up again
)


class Drafts:
    """The last few distinct continuations of each prompt; those unused for longest are forgotten first."""

    def __init__(self, per_prompt: int = 4, capacity: int = 2**22) -> None:
        self._per_prompt, self._capacity = per_prompt, capacity
        self._kept: OrderedDict[Hashable, list[Tokens]] = OrderedDict()
        self._tokens = 0

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self._tokens = 0

    def of(self, prompt: Hashable) -> Sequence[Tokens]:
        """Return the continuations of a prompt, the most recent first."""
        return self._kept.get(prompt, ())

    def add(self, prompt: Hashable, written: Tokens) -> None:
        """Keep a continuation."""
        known = self._kept.pop(prompt, [])
        kept = [written, *(each for each in known if each != written)][: self._per_prompt]
        self._kept[prompt] = kept
        self._tokens += sum(map(len, kept)) - sum(map(len, known))
        while self._tokens > self._capacity:
            _, forgotten = self._kept.popitem(last=False)
            self._tokens -= sum(map(len, forgotten))


def guess(drafts: Sequence[Tokens], written: Tokens, most: int) -> Tokens:
    """Guess at most `most` tokens that come next, the likeliest draft first.

    That is what follows in the first draft that begins with `written`; or else, in the first that has its
    last few tokens somewhere, what follows there; or nothing.
    """
    length = len(written)
    for draft in drafts:
        if len(draft) > length and draft[:length] == written:
            return draft[length : length + most]
    if length >= _OVERLAP:
        tail = written[-_OVERLAP:]
        for draft in drafts:
            for end in range(_OVERLAP, len(draft)):
                if draft[end - _OVERLAP : end] == tail:
                    return draft[end : end + most]
    return []
