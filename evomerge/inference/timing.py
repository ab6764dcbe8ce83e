"""How fast a model serves, beside another one: both continue the same prompts by turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

from evomerge.candidate.timing import Timing
from evomerge.inference.engine import Engine
from evomerge.inference.stopping import Tokens

PROMPTS = 16
"""Continued at once."""
WRITTEN = 15
"""Tokens that each prompt is continued by, whatever they are: how much models write is counted apart."""
TURNS = 7
"""Medians of so many differ by 6 % (standard deviation) where seven other processes share two cores."""


def timing_of(
    engine: Engine,
    beside: Engine,
    prompts: Sequence[Tokens],
    before: Callable[[], None] | None = None,
    *,
    turns: int = TURNS,
) -> Timing:
    """Time a model in alternation with the base, so that both meet the same load.

    Each turn is a pass of either over the prompts and `WRITTEN` tokens of each, one at a time, without what
    speeds up the scoring of relatives (drafts). A first turn is not counted.

    Args:
        engine: Of the model.
        beside: Of a module of the base's shape; its weights do not matter. The same engine: the base itself.
        prompts: One or more.
        before: What takes place before a prompt is read, such as routing.
        turns: How many.

    Returns:
        Medians; `relative` is the median of the ratios turn by turn.
    """

    def seconds(of: Engine, first: Callable[[], None] | None) -> float:
        start = time.perf_counter()
        if first is not None:
            first()
        of.continue_by(prompts, WRITTEN)
        return time.perf_counter() - start

    found = []
    for turn in range(turns + 1):
        base = seconds(beside, None)
        own = base if engine is beside and before is None else seconds(engine, before)
        found += [(own, base)] * (turn > 0)
    ratios = [own / base for own, base in found]
    each = 1000 / len(prompts)
    return Timing(
        milliseconds=each * statistics.median(own for own, _ in found),
        base_milliseconds=each * statistics.median(base for _, base in found),
        relative=statistics.median(ratios),
        spread=(max(ratios) - min(ratios)) / 2,
        tokens=WRITTEN,
    )
