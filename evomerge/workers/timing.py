"""Timing a candidate beside the base, on one worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from evomerge.candidate.timing import Timing
from evomerge.inference.timing import PROMPTS, TURNS, timing_of
from evomerge.scoring import Scorer

Prompts = Sequence[Sequence[int]]


def timing(
    scorer: Scorer, live: nn.Module, module: nn.Module, route: Callable[[Prompts], None] | None
) -> Timing:
    """Time a module as `timing_of` does, on prompts of all tasks.

    Args:
        scorer: Has the items.
        live: Of the base's shape, with any weights.
        module: The candidate's; of one whose members answer apart any member's.
        route: What comes before a member answers.
    """
    tasks = list(scorer.prompts(live).tokens("search").values())
    share = -(-PROMPTS // len(tasks))
    prompts = [list(one) for own in tasks for one in own[:share]][:PROMPTS]
    before = None if route is None else lambda: route(prompts)
    turns = 3 if module is live and route is None else TURNS  # compared with itself
    return timing_of(scorer.engine(module), scorer.engine(live), prompts, before, turns=turns)
