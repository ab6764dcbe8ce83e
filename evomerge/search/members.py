"""What is known of the models that candidates are made over: their scores, and which merge is the best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from evomerge.candidate import Candidate, Merge
from evomerge.candidate.trial import Job, Outcome, TaskScores, Values
from evomerge.config import Campaign
from evomerge.objective.values import Better


class Members:
    """Scores on one split of all models that candidates may be made over.

    Attributes:
        best: The best merge, parents among them, of equals the first; None before any was scored.
        naive: The best of those that no trial found. A merge that was searched looks better on the search
            items than it is, so what learns from members' scores there is made over this one.

    Args:
        campaign: Its objectives.
        better: Direction of each task's metric.
    """

    def __init__(self, campaign: Campaign, better: Better) -> None:
        self._goals, self._better = campaign.objectives, better
        self._counts_tokens = "generated_tokens" in campaign.asked_costs
        self._scores: dict[str, Mapping[str, TaskScores]] = {}
        self._loss = float("inf")
        self.best: Merge | None = None
        self.naive: Merge | None = None

    def known(self, candidate: Candidate, outcome: Outcome, loss: float) -> None:
        """Take a parent or a naive merge, before any trial."""
        self.keep(candidate, outcome)
        self.compare(candidate, outcome, loss)
        self.naive = self.best

    def keep(self, candidate: Candidate, outcome: Outcome) -> None:
        """Take the scores of a model; one that failed or was given up has too few."""
        if outcome.failure is None and outcome.pruned is None:
            self._scores[candidate.text()] = outcome.scores

    def compare(self, candidate: Candidate, outcome: Outcome, loss: float) -> None:
        """Keep a merge that is better than all before; `loss`: how good it is, less is better."""
        if isinstance(candidate, Merge) and outcome.pruned is None and loss < self._loss:
            self.best, self._loss = candidate, loss
            self.keep(candidate, outcome)

    def of(self, candidate: Candidate) -> dict[str, Mapping[str, TaskScores]]:
        """Return the scores of a candidate's members, of those that are known."""
        members = {name: one.text() for name, one in candidate.scored_members.items()}
        return {name: self._scores[text] for name, text in members.items() if text in self._scores}

    def informed(self, job: Job) -> Job:
        """Return a job with all that is known of its candidate's members."""
        scored = self.of(job.entry.candidate)
        learns = job.split == "search"
        known = {name: self._learnable(one) for name, one in scored.items()} if learns else {}
        if self._counts_tokens:  # which are not known of single items
            scored = {}
        return replace(job, scored=scored, known=known)

    def _learnable(self, scores: Mapping[str, TaskScores]) -> Values:
        """Return the values of the searched metrics, signed so that more is better."""
        found = {}
        for goal in self._goals:
            sign = 1.0 if self._better(goal.task, goal.metric) else -1.0
            values: tuple[Any, ...] = scores[goal.task].metrics[goal.metric]
            found[goal.task] = tuple(sign * value for value in values)
        return found
