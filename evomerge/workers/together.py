"""A pool around a pool, whose workers each take several candidates at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import NamedTuple

from evomerge.candidate.trial import Job, Jobs, Outcome, Outcomes
from evomerge.workers.pool import Answer, Pool, Work


class _Task(NamedTuple):
    order: int
    work: Work
    together: bool  # may be done with others


class Together:
    """A pool that gives each worker of another one up to so many candidates at once.

    What is submitted waits until `next` is called: then each idle worker gets its share of it as one piece of
    work, `Jobs`. A batch whose worker died too often, or raised, is taken apart, and its candidates are
    evaluated one by one: so that one of them does not fail the others.

    Args:
        pool: Whose workers work.
        most: Candidates of one batch.
        ordered: Hand work back in the order of submission.
    """

    def __init__(self, pool: Pool, most: int, *, ordered: bool = False) -> None:
        self._pool, self._most, self._ordered = pool, most, ordered
        self._queue: deque[_Task] = deque()
        self._sent: dict[int, tuple[Work, list[_Task]]] = {}  # by id, as work need not be hashable
        self._done: dict[int, tuple[Work, Answer]] = {}
        self._submitted = self._returned = 0

    @property
    def size(self) -> int:
        """How many jobs may be submitted at once."""
        return self._most * self._pool.size

    @property
    def free(self) -> int:
        """How much more work may be submitted now."""
        return max(0, self.size - self._submitted + self._returned)

    def wait_ready(self) -> None:
        """Wait until a worker is ready."""
        self._pool.wait_ready()

    def submit(self, work: Work) -> None:
        """Keep work until `next`."""
        if not self.free:
            raise ValueError("every worker is busy; take a finished job with next first")
        self._queue.append(_Task(self._submitted, work, goes_together(work)))
        self._submitted += 1

    def next(self, timeout: float | None = None) -> tuple[Work, Answer]:
        """Wait for work to finish; without any time to wait, only whole batches are begun."""
        if self._returned == self._submitted:
            raise ValueError("no job was submitted")
        while (found := self._take()) is None:
            self._give(only_whole=timeout == 0)
            if not self._sent:
                raise TimeoutError("no job finished at once")
            self._land(*self._pool.next(timeout))
        return found

    def close(self, *, force: bool = False) -> None:
        """Let the workers go."""
        self._pool.close(force=force)
        self._queue.clear()
        self._sent, self._done, self._returned = {}, {}, self._submitted

    def _take(self) -> tuple[Work, Answer] | None:
        order = self._returned if self._ordered else next(iter(self._done), -1)
        found = self._done.pop(order, None)
        self._returned += found is not None
        return found

    def _give(self, *, only_whole: bool) -> None:
        """Share what waits out among idle workers, in its order."""
        while self._queue and (idle := self._pool.free):
            count = len(list(takewhile(lambda task: task.together, self._queue)))
            if only_whole and count == len(self._queue) < self._most:
                return
            share = max(1, min(self._most, count if only_whole else -(-count // idle)))
            tasks = [self._queue.popleft() for _ in range(share)]
            jobs = tuple(task.work for task in tasks if isinstance(task.work, Job))
            work = Jobs(jobs) if len(tasks) > 1 else tasks[0].work
            self._sent[id(work)] = work, tasks
            self._pool.submit(work)

    def _land(self, work: Work, answer: Answer) -> None:
        _, tasks = self._sent.pop(id(work))
        if not isinstance(answer, Outcomes):
            (task,) = tasks
            self._done[task.order] = work, answer
        elif answer.failure is not None:
            self._queue.extendleft(task._replace(together=False) for task in reversed(tasks))
        else:
            for task, outcome in zip(tasks, answer.each, strict=True):
                self._done[task.order] = task.work, outcome


def goes_together(work: Work) -> bool:
    """Tell whether work may be done with other such work: a merge, scored in full on `search` items.

    The other splits are scored by the very weights that the campaign saves.
    """
    if not isinstance(work, Job) or work.split != "search":
        return False
    return work.entry.candidate.kind == "merge" and work.race is None and work.noise is None


def end_to_end(
    outcomes: Sequence[Outcome], began: float, seconds: float, tokens: Mapping[int, int]
) -> list[Outcome]:
    """Share out what a batch took before its first candidate, and lay its candidates end to end.

    Args:
        outcomes: Of the candidates, in the order in which they were evaluated.
        began: Unix time at which the batch began.
        seconds: That it took to write for some of them.
        tokens: Position of each of those → how many tokens it has written; the seconds are shared out by it.
    """
    whole, found = sum(tokens.values()), []
    for place, outcome in enumerate(outcomes):
        own = tokens.get(place, 0) / whole if whole else (place in tokens) / len(tokens)
        score = outcome.cost.score_seconds + seconds * own
        cost = replace(outcome.cost, score_seconds=score, began=began)
        began += cost.merge_seconds + cost.score_seconds
        found.append(replace(outcome, cost=cost))
    return found
