"""Which trials go to the select items, and what these decide: the winner, and which λ is the tuned one.

Whatever is scored on `holdout` is settled here, before anything was read there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

from evomerge.candidate import Candidate
from evomerge.candidate.trial import Entry, Outcome, row_name
from evomerge.objective import Objectives, feasible, in_lambda_grid, tuned_lambda
from evomerge.space import Baseline
from evomerge.store import Evaluation, Store
from evomerge.tasks.metrics import GOLD_LOGLIKELIHOOD

_Scored = tuple[Entry, str, Outcome]  # a trial, the key of the row that has its scores, these


def pick_finalists(
    in_turn: Iterable[Entry],
    count: int,
    known: Sequence[Baseline],
    content: Callable[[Candidate], Hashable],
) -> tuple[list[Entry], dict[str, Entry]]:
    """Take trials until `count` new models are found.

    Args:
        in_turn: The trials, the likeliest winners first; read no further than needed.
        count: How many.
        known: Parents and naive merges.
        content: Candidate → a value that is equal for candidates of one model.

    Returns:
        The finalists, no two of them one model and none a parent or naive merge. And key of a parent or
        naive merge → the first trial that is the same model: it takes no place, for the scores on `select`
        are known; it may still be the winner.
    """
    rows = {content(row.candidate): row.key for row in reversed(known)}
    chosen: dict[Hashable, Entry] = {}
    copies: dict[str, Entry] = {}
    for entry in in_turn:
        if len(chosen) == count:
            break
        found = content(entry.candidate)
        if found in rows:
            copies.setdefault(rows[found], entry)
        else:
            chosen.setdefault(found, entry)
    return list(chosen.values()), copies


def references_of(store: Store) -> tuple[Evaluation, ...]:
    """Return what was recorded of models, without experts that joined after the campaign began.

    A search that goes on is measured by the experts that it began with: values that are shares of the best
    expert's, and constraints relative to it, stay what they were.
    """
    names = store.campaign.expert_names()
    return tuple(one for one in store.evaluations() if one.kind != "expert" or one.name in names)


def choose_winner(
    store: Store,
    candidates: Iterable[Entry],
    copies: Mapping[str, Entry] | None = None,
    path: Callable[[int], Sequence[int]] = lambda number: (),
) -> tuple[Entry, str] | None:
    """Return the trial that the select items pick, among all that were ever scored on them.

    One that meets every constraint, and of those the one with the best mean of the reported metrics (less
    the costs that come off it; of a Pareto front the member with the best mean); where none meets them, the
    one that misses them least. Of equals the present winner, then the earlier. A descent takes part with one
    of its points only, that at which the gold answers are likeliest: few items tell by their exact matches
    hardly how far it should go.

    Args:
        store: Holds outcomes on `select`.
        candidates: The finalists, in the order in which equals shall stand.
        copies: Key of a naive merge → the trial that is the same model, and has its scores.
        path: Trial → the trials of its descent, if it belongs to one.

    Returns:
        The trial, and what chose it, a clause; None where no trial has scores there.
    """
    evaluations = references_of(store)
    aims = Objectives.of(store.campaign, store.facts, evaluations, "select")
    rows = {one.key: one for one in evaluations if one.split == "select"}
    scored = [
        (entry, source, rows[source].outcome)
        for entry, source in _in_turn(rows, candidates, copies or {})
        if source in rows and aims.quality(rows[source].outcome) > -math.inf
    ]
    count = len(scored)
    if store.campaign.mode == "mean":
        scored = _stopped(aims, scored, path)
    violations = [aims.violations(outcome, entry.candidate) for entry, _, outcome in scored]
    values = [aims.values(outcome, entry.candidate) for entry, _, outcome in scored]
    ordered = aims.order(values, violations)
    if not ordered:
        return None
    best = ordered[0][0]
    entry, source, _ = scored[best]
    how = f"the best of {count} trials that were scored on the select items"
    if len(scored) < count:
        how += ", of each descent the point with the likeliest gold answers"
    if not feasible(violations[best]):
        how += ", of which none meets every constraint"
    if source != entry.key:
        how += f"; it is the same model as {row_name(source)}"
    return entry, how


def _stopped(
    aims: Objectives, scored: Sequence[_Scored], path: Callable[[int], Sequence[int]]
) -> list[_Scored]:
    """Leave out the points of each descent but that with the likeliest gold answers.

    Of those that meet every constraint, if any does; all stay where the likelihood is not known of one.
    """
    best: dict[tuple[int, ...], _Scored] = {}
    kept = []
    for one in scored:
        number = one[0].number
        points = () if number is None else tuple(path(number))
        others = [each for each in scored if each[0].number in points]
        likelihoods = [_likelihood(aims, outcome) for *_, outcome in others]
        if len(others) < 2 or None in likelihoods:
            kept.append(one)
        elif points not in best:
            met = [feasible(aims.violations(o, entry.candidate)) for entry, _, o in others]
            ranks = [(ok, value) for ok, value in zip(met, likelihoods, strict=True)]
            best[points] = others[ranks.index(max(ranks))]
            kept.append(best[points])
    return kept


def _likelihood(aims: Objectives, outcome: Outcome) -> float | None:
    """Return the mean log-likelihood of gold answers, tasks weighted as objectives; None: not known."""
    goals = [goal for goal in aims.campaign.objectives if goal.task in outcome.scores]
    values = [outcome.scores[goal.task].values.get(GOLD_LOGLIKELIHOOD) for goal in goals]
    if not values or None in values:
        return None
    return sum(g.weight * v.value for g, v in zip(goals, values, strict=True) if v is not None)


def compared_baselines(store: Store, baselines: Iterable[Baseline]) -> list[Baseline]:
    """Return the parents and baselines to be read on `holdout`: of the λ grid the tuned one only."""
    evaluations = references_of(store)
    aims = Objectives.of(store.campaign, store.facts, evaluations, "select")
    kept = tuned_lambda(aims, evaluations)
    return [one for one in baselines if one.key == kept or not in_lambda_grid(one.key)]


def _in_turn(
    rows: Mapping[str, Evaluation], candidates: Iterable[Entry], copies: Mapping[str, Entry]
) -> list[tuple[Entry, str]]:
    """Return each trial once, with the key of the row that has its scores, as equals shall stand."""
    trials = [one for one in rows.values() if one.kind in ("finalist", "winner")]
    trials.sort(key=lambda one: one.kind != "winner")  # the present winner first
    stored = [one.entry for one in trials]
    first = stored[:1] if trials and trials[0].kind == "winner" else []
    found = {one.key: (one, one.key) for one in (*first, *candidates, *stored)}
    for source, one in copies.items():
        found.setdefault(one.key, (one, source))
    return list(found.values())
