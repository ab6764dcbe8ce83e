"""What is read before the first trial: prompts by experts for statistics, prompts and answers by teachers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evomerge.candidate.trial import SPLITS
from evomerge.preflight.check import FINAL_SPLITS, Preflight
from evomerge.preflight.rates import Rates
from evomerge.search.samplers import sampler_class
from evomerge.tasks.metrics import TEACHER_DIVERGENCE

_OWN = {"importance": 1.0, "moment": 2.0}
"""What reads a prompt once → how many plain readings that takes; moments are all pairs of columns."""
_MERGED = 4.0
"""The same where layers are merged one after another: a reading, and two of each layer."""


@dataclass(frozen=True)
class Preparation:
    """Items that single models read.

    Attributes:
        statistics: Prompts that experts read so that statistics of their activations are taken.
        readings: How many plain readings each of these takes.
        answered: Prompts that teachers answer.
        taught: Items whose right answers teachers read.
    """

    statistics: int = 0
    readings: float = 0.0
    answered: int = 0
    taught: int = 0

    def seconds(self, rates: Rates) -> float:
        """Return the time of one worker."""
        read = self.statistics * self.readings + self.answered + self.taught
        return read * rates.read + self.answered * rates.written

    def __str__(self) -> str:
        parts = {
            "prompts read for statistics": self.statistics,
            "answered by teachers": self.answered,
            "items read by teachers": self.taught,
        }
        return ", ".join(f"{count} {what}" for what, count in parts.items() if count)


def preparation_of(ready: Preflight, golds: Mapping[str, int]) -> Preparation:
    """Count what a campaign reads before its first trial.

    Args:
        ready: The checked campaign.
        golds: Task → number of its search items that have a gold answer.
    """
    campaign, goals, items = ready.campaign, ready.campaign.objectives, ready.campaign.items
    reads = frozenset() if campaign.statistics else ready.space.needs.statistics
    taught_by = [
        sum(goal.teacher == name for goal in goals) or len(goals)
        for name in (campaign.expert_names() if reads else ())
    ]
    asked = [each.task for each in ready.prompts]
    taught = 0
    if sampler_class(campaign).needs_gold:
        taught = sum(golds[goal.task] for goal in goals if goal.loss != "gold")
    for goal in goals:
        if goal.task in asked or goal.report == TEACHER_DIVERGENCE:
            taught += sum(getattr(items, split) for split in FINAL_SPLITS)
    return Preparation(
        statistics=items.search * sum(taught_by),
        readings=max((_OWN.get(each, 0.0) for each in reads), default=0.0)
        + _MERGED * ("merged" in reads),
        answered=sum(len(ready.items.ids(task, split)) for task in asked for split in SPLITS),
        taught=taught,
    )
