"""What reports read of a study, finished, running or interrupted: each part once, when it is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.candidate.trial import Split
from evomerge.config import Campaign
from evomerge.objective import Objectives
from evomerge.report.coefficients import Coefficient, coefficients_of
from evomerge.report.curve import Curve, curve_of
from evomerge.report.leaderboard import Leaderboard, leaderboard
from evomerge.report.rows import Row
from evomerge.report.timeline import Span, spans_of
from evomerge.store import parameter_importances, read_texts

if TYPE_CHECKING:
    from evomerge.store import Evaluation, ItemText, Store, StoredGradient, StoredTrial, Winner


@dataclass(frozen=True, eq=False)
class Material:
    """A study as reports read it, while its store is open; one object is one moment of a running study.

    Attributes:
        store: Open, for reading at least.
    """

    store: Store

    @classmethod
    def of(cls, store: Store) -> Material:
        """Return the material of an open store; nothing is read yet."""
        return cls(store)

    @property
    def folder(self) -> Path:
        """The results folder."""
        return Path(self.store.folder)

    @property
    def campaign(self) -> Campaign:
        """The settings as run."""
        return self.store.campaign

    @property
    def facts(self) -> Mapping[str, Any]:
        """Versions, hashes and items, as recorded when the campaign began."""
        return self.store.facts

    @property
    def finished(self) -> bool:
        """Whether all is done and saved; otherwise the study runs, or was interrupted."""
        return self.store.finished

    @cached_property
    def trials(self) -> tuple[StoredTrial, ...]:
        """Every trial, in the order of their numbers; per-item scores are read when they are asked for."""
        return self.store.trials()

    @cached_property
    def steps(self) -> tuple[StoredGradient, ...]:
        """Every step of every descent."""
        return self.store.gradient_steps()

    @cached_property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """Parents, naive merges, finalists and the winner on each split on which they were scored."""
        return self.store.evaluations()

    @cached_property
    def winner(self) -> Winner | None:
        """None as long as none was chosen."""
        return self.store.winner

    @cached_property
    def board(self) -> Leaderboard:
        """The leaderboard, on all splits."""
        return leaderboard(self.store, trials=self.trials)

    @property
    def split(self) -> Split:
        """The last of search, select and holdout on which any row was scored: what a report shows first."""
        return self.board.latest_split()

    @property
    def aims(self) -> Objectives:
        """The objectives on the search items, as the sampler saw them."""
        return self.board.aims["search"]

    @cached_property
    def curve(self) -> Curve:
        """The best so far against trials, item evaluations and seconds."""
        return curve_of(self.trials, self.steps, self.aims)

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """What each worker did when, in the order in which it began."""
        return spans_of(self.trials, self.steps, self.evaluations)

    @cached_property
    def importances(self) -> dict[str, float]:
        """Searched number → its share in what makes the best trials, the largest first; empty: too few."""
        scored = [one for one in self.trials if one.state == "complete" and one.values is not None]
        values = [self.aims.mean(one.values or ()) for one in scored]
        points = [one.params for one in scored]
        return parameter_importances(points, values, self.store.distributions())

    @property
    def shown(self) -> Row | None:
        """The winner; as long as there is none, the best trial so far."""
        rows = self.board.rows
        found = (row for kind in ("winner", "finalist") for row in rows if row.kind == kind)
        return next(found, None)

    @cached_property
    def coefficients(self) -> tuple[Coefficient, ...]:
        """The numbers of the model `shown` where it is a merge; else none."""
        return () if self.shown is None else coefficients_of(self.shown.recipe)

    def texts(self, split: Split) -> dict[str, tuple[ItemText, ...]]:
        """Return task → prompt and gold answer of each item of a split; empty where none were kept."""
        return read_texts(self.store.arrays, split)
