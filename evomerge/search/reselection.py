"""A finished campaign with one expert more, or less: what could be its winner, and which is best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from evomerge.candidate import Candidate, Merge
from evomerge.candidate.ensemble import Ensemble, Router
from evomerge.candidate.experts import with_expert, without_expert
from evomerge.candidate.trial import SPLITS, Entry, Job, Outcome, Split
from evomerge.errors import EvomergeError, RecipeError
from evomerge.merge.validation import check_recipe
from evomerge.objective import Objectives, metric_on
from evomerge.progress import Pace
from evomerge.search.bench import Bench
from evomerge.search.members import Members
from evomerge.space import Baseline
from evomerge.space.baselines import BASE, BEST
from evomerge.store import Evaluation
from evomerge.workers.pool import in_turn

CHOSEN_BY: tuple[Split, ...] = ("search", "select")
MARGINS = (0.0, 1.0)
LAYERS = 8
"""Most layers whose states are tried as features of a new router."""
WEIGHTS = (0.25, 0.5, 0.75, 1.0)
"""Weights of an expert that are tried where it joins a merge."""


class Reselection:
    """Candidates for another winner, scored where nothing is known of them yet.

    Args:
        bench: Of the campaign with the experts that there are now, and its store.
        facts: Of that campaign.
        parents: Base and experts that there are now.
        layers: Of a model.
        joined: Name of the expert that joined; None: one left.
        left: Name of the expert that left, and its model; None: one joined.
        place: Of the statistics of the expert that joined in their file; None: merges read none.
    """

    def __init__(
        self,
        bench: Bench,
        facts: Mapping[str, Any],
        parents: Sequence[Baseline],
        layers: int,
        *,
        joined: str | None = None,
        left: tuple[str, str] | None = None,
        place: int | None = None,
    ) -> None:
        self._bench, self._facts, self._layers = bench, facts, layers
        self._joined, self._left, self._place = joined, left, place
        self.what = f"with {joined}" if left is None else f"without {left[0]}"
        self.parents = {row.name: row.entry for row in parents}
        self._known: dict[Split, dict[str, tuple[Candidate, Outcome]]] = {s: {} for s in SPLITS}
        for trial in bench.store.trials():
            if trial.outcome is not None:
                self._keep(trial.candidate, "search", trial.outcome)
        for one in bench.store.evaluations():
            self._keep(one.candidate, one.split, one.outcome)

    def candidates(self, before: Entry) -> list[Entry]:
        """Return what could be the winner, scored on the search and select items.

        The winner so far, unless an expert left that is part of it; its merge with the expert, or without
        it; the best ensemble of the experts that there are.
        """
        parents = list(self.parents.values())
        for split in CHOSEN_BY:
            self.score(parents, split)
        stays = self._left is None or self._left[1] not in before.candidate.model_names()
        found = [before] if stays else []
        self.score(found, "select")
        old = best_merge(before.candidate)
        merge = self._best_merge(old)
        if merge is not None and (merge != old or not stays):
            found.append(self._finalist(merge, "merge "))
        ensemble = self._best_ensemble(before.candidate, merge)
        if ensemble is not None:
            found.append(self._finalist(ensemble))
        if not found:
            found.append(self._finalist(self.best(parents).candidate))
        for split in CHOSEN_BY:
            self.score([one for one in found if one != before], split)
        return found

    def best(self, entries: Sequence[Entry], split: Split = "select") -> Entry:
        """Return the best by the scores on a split, of equals the first."""
        evaluations = self._bench.store.evaluations()
        aims = Objectives.of(self._bench.campaign, self._facts, evaluations, split)
        scored = [(self._outcome(one, split), one.candidate) for one in entries]
        values = [aims.values(outcome, candidate) for outcome, candidate in scored]
        misses = [aims.violations(outcome, candidate) for outcome, candidate in scored]
        return entries[aims.order(values, misses)[0][0]]

    def values(self, entry: Entry, split: Split) -> dict[str, float | None]:
        """Return the value of each objective on a split, None where it is not known."""
        scores, found = self._outcome(entry, split).scores, {}
        for goal in self._bench.campaign.objectives:
            metrics = scores[goal.task].values if goal.task in scores else {}
            value = metrics.get(metric_on(goal, split))
            found[goal.task] = None if value is None else value.value
        return found

    def score(self, entries: Sequence[Entry], split: Split, *, record: bool = True) -> list[Entry]:
        """Score what is not known of models; return them with what they have learnt.

        Args:
            entries: The models.
            split: Of the items.
            record: Whether the results folder keeps the scores.

        Raises:
            EvomergeError: One cannot be scored.
        """
        metrics, told = self._bench.wanted(split)
        apart, over = [], []
        for one in entries:
            if missing := self._missing(one, split, metrics):
                wanted = {task: metrics[task] for task in missing}
                timed = self._bench.is_timed(one, split)
                if one.candidate.scored_members:
                    over.append(Job(one, split, metrics, targets=told, timed=timed))
                else:
                    apart.append(Job(one, split, wanted, targets=told, timed=timed))
        new = {one.entry.candidate.text() for one in (*apart, *over)}
        pace = Pace(self._bench.display, f"{self.what}: {split}", len(new)) if new else None
        self._run(apart, pace)
        members = Members(self._bench.campaign, self._bench.items.higher_is_better)
        for candidate, outcome in self._known[split].values():
            members.keep(candidate, outcome)
        self._run(list(map(members.informed, over)), pace)
        learnt = [replace(one, candidate=self._learnt(one, split)) for one in entries]
        if record:
            kept = {(one.key, one.candidate.text()) for one in self._recorded(split)}
            for one, entry in zip(entries, learnt, strict=True):
                is_trial = entry.number is not None  # which is stored elsewhere, too
                is_kept = is_trial or (entry.key, entry.candidate.text()) in kept
                if one.candidate.text() in new or not is_kept:
                    outcome = self._outcome(entry, split)
                    self._bench.store.record(Job(entry, split, metrics), outcome)
        return learnt

    def _recorded(self, split: Split) -> list[Evaluation]:
        return [one for one in self._bench.store.evaluations() if one.split == split]

    def _best_merge(self, old: Merge | None) -> Merge | None:
        """Return the merge that is best on the search items: with the expert, or as it is; or without it."""
        if old is None:
            return None
        if self._left is not None:
            options = [without_expert(old, self._left[1])]
        else:
            model = self.parents[str(self._joined)].candidate.model_names()[-1]
            options = [old, *(with_expert(old, model, w, self._place) for w in WEIGHTS)]
        merges = [self._finalist(one) for one in options if one is not None and _is_valid(one)]
        if not merges:
            return None
        self.score(merges, "search", record=False)
        best = self.best(merges, "search").candidate
        self.score([self._finalist(best)], "select", record=False)
        assert isinstance(best, Merge)
        return best

    def _best_ensemble(self, before: Candidate, merge: Merge | None) -> Candidate | None:
        """Fit routers on what is known; return the ensemble that is best on the select items."""
        whole = self._members(before, merge)
        sets = [whole]
        if BEST in whole and not isinstance(before, Ensemble):
            # The merge was searched on the items that routers learn from, where it looks better than it is.
            sets.append({name: one for name, one in whole.items() if name != BEST})
        base = self.parents[BASE].candidate.model_names()[0]
        unfitted = [
            self._finalist(Ensemble(base, members, router))
            for members in sets
            if len(members) > 1
            for router in self._routers(before, members)
        ]
        if not unfitted:
            return None
        fitted = self.score(unfitted, "search", record=False)
        self.score(fitted, "select", record=False)
        return self.best(fitted).candidate

    def _members(self, before: Candidate, merge: Merge | None) -> dict[str, Merge]:
        """Return those of an ensemble as they were, and who joined; else all parents; and the best merge."""
        found = {name: one.candidate for name, one in self.parents.items()}
        if isinstance(before, Ensemble):
            named = {name for name in before.members if name in found} | {self._joined}
            found = {name: one for name, one in found.items() if name in named}
        return {
            name: one for name, one in (*found.items(), (BEST, merge)) if isinstance(one, Merge)
        }

    def _routers(self, before: Candidate, members: Mapping[str, Merge]) -> list[Router]:
        """Return the router's settings as they were; of a new one several."""
        fallback = BEST if BEST in members else None
        if isinstance(before, Ensemble) and before.router is not None:
            kept = before.router.fallback
            return [replace(before.router, fallback=kept if kept in members else fallback)]
        count = min(LAYERS, self._layers)
        layers = [round((place + 1) * self._layers / count) for place in range(count)]
        margins = MARGINS if fallback is not None else MARGINS[:1]
        return [Router(layer, fallback, margin) for layer in layers for margin in margins]

    def _run(self, jobs: Sequence[Job], pace: Pace | None) -> None:
        for job, outcome in in_turn(self._bench.pool, jobs):
            assert isinstance(job, Job)
            assert isinstance(outcome, Outcome)
            if outcome.failure is not None:
                why = f"cannot be scored on the {job.split} items: {outcome.failure.reason}"
                raise EvomergeError(f"{job.entry.name} {why}")
            self._keep(job.entry.candidate, job.split, outcome)
            if pace is not None:
                pace.step()

    def _keep(self, candidate: Candidate, split: Split, outcome: Outcome) -> None:
        """Take what is known of a model: of several outcomes all tasks, their cost, and what it learnt."""
        if outcome.failure is not None or outcome.pruned is not None:
            return
        for one in (candidate, outcome.candidate):
            if one is not None:
                _, before = self._known[split].get(one.text(), (one, Outcome()))
                carried = before.scores.keys() - outcome.scores.keys()
                whole = replace(
                    outcome,
                    scores={**before.scores, **outcome.scores},
                    cost=before.cost + outcome.cost if carried else outcome.cost,
                    timing=outcome.timing or before.timing,
                )
                self._known[split][one.text()] = one, whole

    def _outcome(self, entry: Entry, split: Split) -> Outcome:
        return self._known[split].get(entry.candidate.text(), (None, Outcome()))[1]

    def _learnt(self, entry: Entry, split: Split) -> Candidate:
        return self._outcome(entry, split).candidate or entry.candidate

    def _missing(
        self, entry: Entry, split: Split, metrics: Mapping[str, tuple[str, ...]]
    ) -> list[str]:
        """Return the tasks of which not all metrics are known."""
        scores = self._outcome(entry, split).scores
        known = {task: one.metrics.keys() for task, one in scores.items()}
        return [task for task, wanted in metrics.items() if not known.get(task, set()) >= {*wanted}]

    def _finalist(self, candidate: Candidate, kind: str = "") -> Entry:
        return Entry(f"{kind}{self.what}", candidate, role="finalist")


def best_merge(candidate: Candidate) -> Merge | None:
    """Return a winner's merge: itself, or what an ensemble calls the best; None: it has none."""
    if isinstance(candidate, Ensemble):
        return candidate.members.get(BEST)
    return candidate if isinstance(candidate, Merge) else None


def _is_valid(merge: Merge) -> bool:
    """Tell whether its method merges so many models; slerp takes no third one."""
    try:
        check_recipe(merge.recipe())
    except RecipeError:
        return False
    return True
