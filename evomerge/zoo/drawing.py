"""Items of the zoo's jobs: drawn from their generators, split by content, the same on any machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from typing import Literal

from evomerge.errors import TaskError, nearest
from evomerge.zoo.jobs import JOBS, Draft

Split = Literal["train", "test"]

USER, ASSISTANT, END = "<|user|>", "<|assistant|>", "<|end|>"
TEST_SHARE = 0.2
# A generator that finds nothing new in so many draws has nothing left.
PATIENCE = 20_000


@dataclass(frozen=True)
class Item:
    """One item of a job.

    Attributes:
        prompt: The conversation in the zoo's chat markup, up to where the assistant answers.
        answer: The only right answer, in the canonical format.
        choices: The answer and three wrong ones, shuffled.
        gold: Where in `choices` the answer stands.
    """

    prompt: str
    answer: str
    choices: tuple[str, ...]
    gold: int


def items(job: str, split: Split, count: int, *, seed: int = 0) -> list[Item]:
    """Draw items of a job, no prompt twice.

    An item belongs to `train` or `test` by a hash of its content (the record to extract, the
    conversation, the call, the meaning to translate, the wording of the question), so the two are
    disjoint whatever is drawn.

    Args:
        job: One of the zoo's jobs.
        split: `train` or `test`.
        count: How many items.
        seed: Another seed draws other items of the same split.

    Returns:
        `count` items; a smaller `count` gives a prefix of a larger one.

    Raises:
        TaskError: The job is unknown, or has fewer than `count` different items.
    """
    if job not in JOBS:
        raise TaskError(f"unknown job {job!r} of the zoo; {nearest(job, JOBS)}")
    found: dict[str, Item] = {}
    rng = Random(f"{job} {split} {seed}")
    drawn = drafts(job, split, rng)
    misses = 0
    while len(found) < count:
        draft = next(drawn)
        prompt = markup(draft.turns)
        if prompt in found:
            misses += 1
            if misses > PATIENCE:
                raise TaskError(f"job {job!r} has {len(found)} {split} items, asked for {count}")
            continue
        misses = 0
        choices = [draft.answers[0], *draft.wrong[:3]]
        rng.shuffle(choices)
        gold = choices.index(draft.answers[0])
        found[prompt] = Item(prompt, draft.answers[0], tuple(choices), gold)
    return list(found.values())


def drafts(job: str, split: Split, rng: Random) -> Iterator[Draft]:
    """Draw a job's cases of one split without end."""
    draw = JOBS[job]
    while True:
        draft = draw(rng)
        if side(draft.content) == split:
            yield draft


def side(content: str) -> Split:
    """Say whether a content belongs to `train` or to `test`."""
    digest = blake2b(content.encode(), digest_size=8).digest()
    return "test" if int.from_bytes(digest) < TEST_SHARE * 2**64 else "train"


def markup(turns: tuple[str, ...]) -> str:
    """Write turns (user, assistant, user, ...) as the zoo's chat template does, up to the answer."""
    roles = (USER if number % 2 == 0 else ASSISTANT for number in range(len(turns)))
    written = (f"{role}{turn}{END}" for role, turn in zip(roles, turns, strict=True))
    return "".join(written) + ASSISTANT
