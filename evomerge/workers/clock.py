"""How long a worker takes for a candidate."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from evomerge.candidate.cost import Cost


@dataclass
class Clock:
    """Times one candidate: its merge, then its scoring."""

    start: float = field(default_factory=time.perf_counter)
    began: float = field(default_factory=time.time)
    merge_seconds: float | None = None

    def merged(self) -> None:
        """Note that the weights are written."""
        self.merge_seconds = time.perf_counter() - self.start

    def cost(self, items: int = 0, generated_tokens: int = 0) -> Cost:
        """Return what it took until now; all of it is the merge's where none was noted."""
        total = time.perf_counter() - self.start
        merge = total if self.merge_seconds is None else self.merge_seconds
        return Cost(merge, total - merge, items, generated_tokens, began=self.began)
