"""What a reader of a leaderboard must know beside its numbers, a plain sentence each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from evomerge.candidate.trial import Split
from evomerge.config import TEACHER_MATCH
from evomerge.objective import total_violation
from evomerge.report.evidence import FINAL, GeneralisationGap
from evomerge.report.failures import failure_notes
from evomerge.report.grid import number
from evomerge.report.leaderboard import Leaderboard
from evomerge.report.rows import Row
from evomerge.report.serving import unlike
from evomerge.report.summary import Constraint, Goal, Summary
from evomerge.report.verdict import verdict

NET = "net"
DIVERGENCE = "teacher_divergence"
MISSES = "†"


def notes(leaderboard: Leaderboard, split: Split, shown: Sequence[Row]) -> list[str]:
    """Return the notes under a leaderboard on one split, of which `shown` are the rows."""
    campaign, tests, rows = leaderboard.campaign, leaderboard.tests, leaderboard.rows
    found = [verdict(leaderboard).sentence] if leaderboard.winners and split == FINAL else []
    found += [_progress(leaderboard), *failure_notes(leaderboard.failures)]
    found += naive_notes(rows, split)
    found += zero_notes(rows, campaign.goals, split)
    found += readings_notes(campaign.holdout_readings)
    found += [generalisation_gap_note(one) for one in tests.generalisation_gap]
    found += _meaning_notes(campaign)
    if unlike([row.serving for row in shown]):
        found.append(
            "relative to the base's: parameters, all weights; active parameters, those that one token is "
            "computed with; time to continue a prompt, measured beside the base"
        )
    found += [teacher_note(goal, rows, split) for goal in campaign.goals if goal.answered_by]
    found += constraint_notes(leaderboard.constraints, rows)
    if any(row.misses(split) for row in shown):
        found.append(f"{MISSES} misses a constraint on the {split} items")
    if any(split in row.splits and row.splits[split].estimated for row in shown):
        found.append("estimate: the trial was pruned before its last item")
    front = [row.name for row in rows if row.front]
    if front:
        found.append(f"Pareto front: {', '.join(front)}")
    for row in shown:
        failure = row.splits[split].failure if split in row.splits else None
        if failure is not None:
            found.append(f"{row.name} has no scores: {failure}")
    hidden = len(rows) - len(shown)
    if hidden:
        found.append(f"{hidden} more rows were not scored on {split}")
    return found


def zero_notes(rows: Sequence[Row], goals: Sequence[Goal], split: Split) -> list[str]:
    """Say of each task that is 0 for every model that it is; the metric is the one that counts there."""
    found = []
    for goal in goals:
        metric, upward = goal.report, goal.higher_is_better
        if split == "search":
            metric, upward = goal.metric, goal.searched_higher_is_better
        scored = [row.splits[split].tasks.get(goal.task, {}) for row in rows if split in row.splits]
        values = [metrics[metric].value for metrics in scored if metric in metrics]
        if upward and len(values) > 1 and not any(values):
            found.append(
                f"{goal.task}: every model has 0 of {metric} on the {split} items, so the task tells no "
                "model from another; look at its prompts and answers, or leave it out"
            )
    return found


def naive_notes(rows: Sequence[Row], split: Split) -> list[str]:
    """Say whether a winner is below a naive merge, compared as winners are chosen."""

    def ranked(kind: str) -> Iterator[tuple[tuple[float, float], Row]]:
        for row in rows:
            rank = row.splits[split].rank if row.kind == kind and split in row.splits else None
            if rank is not None:
                yield rank, row

    def reached(rank: tuple[float, float], row: Row) -> str:
        scores = row.splits[split]
        value = row.objective(split) if scores.net is None else scores.net
        missed = " and misses a constraint" if total_violation(scores.violations) > 0 else ""
        return f"{value:.3f}{missed}"

    best = max(ranked("baseline"), key=lambda pair: pair[0], default=None)
    return [
        f"{winner.name}, the winner, is below a naive merge on the {split} items: {best[1].name} has "
        f"{reached(*best)}, {winner.name} {reached(own, winner)}"
        for own, winner in ranked("winner")
        if best is not None and best[0] > own
    ]


def readings_notes(readings: int) -> list[str]:
    """Say how often the holdout items were read, where that is more than once."""
    if readings < 2:
        return []
    return [
        f"the {FINAL} items were read {readings} times, each time for a new winner: of the scores on them "
        "the best is no longer unbiased, so expect a little less on fresh items"
    ]


def generalisation_gap_note(one: GeneralisationGap) -> str:
    """Say what is left on fresh items of a winner's score."""
    steps = [("search", one.search), ("select", one.select), ("holdout", one.holdout)]
    known = [(split, value) for split, value in steps if value is not None]
    return (
        f"{one.row} from {' to '.join(split for split, _ in known)} items ({one.metric} metric): "
        f"{' to '.join(number(value) for _, value in known)}, "
        f"a generalisation gap of {number(one.difference)}"
    )


def constraint_notes(constraints: Sequence[Constraint], rows: Sequence[Row]) -> list[str]:
    """Say of each constraint what the winner reaches, and whether any finalist meets them all."""
    winners = [row for row in rows if row.kind == "winner"]
    found = []
    for position, constraint in enumerate(constraints):
        of = constraint.of.replace("_", " ")
        what = constraint.name.replace("_", " ") if constraint.cost else constraint.name
        asked = f"keep {what}: " + (
            f"at most {constraint.at_most:g} times the base's"
            if constraint.cost
            else f"at least {constraint.at_least:g} of {of}"
        )
        parts = []
        for split in ("select", FINAL):
            needed = constraint.limits.get(split)
            if needed is not None:
                reached = [_reached(row, constraint, position, split) for row in winners]
                parts.append(f"{split} {needed:.3f}{''.join(reached)}")
            elif any(split in row.splits for row in winners):
                parts.append(f"{split} unknown, as {of} was not scored there: not met")
        found.append(f"{asked} ({'; '.join(parts) or 'not scored yet'})")
    if any(row.misses("select") for row in winners):
        found.append(
            "no finalist meets every constraint on the select items: the winner is the one that misses "
            "them least"
        )
    return found


def teacher_note(goal: Goal, rows: Sequence[Row], split: Split) -> str:
    """Say what the scores on prompts without labels are."""
    far = [
        f"{row.name}'s divergence from it is {row.splits[split].tasks[goal.task][DIVERGENCE].value:.3f} nats "
        "a token"
        for row in rows
        if row.kind == "winner" and split in row.splits
        if DIVERGENCE in row.splits[split].tasks.get(goal.task, {})
    ]
    teacher = goal.answered_by
    return "; ".join(
        [
            f"{goal.task}: prompts without labels, so what is scored is agreement with the answers of "
            f"{teacher}, the teacher, not correctness",
            f"{teacher} itself has a {TEACHER_MATCH} of 1 by construction",
            *far,
        ]
    )


def _progress(leaderboard: Leaderboard) -> str:
    campaign = leaderboard.campaign
    of = "" if campaign.trials is None else f" of {campaign.trials}"
    done = f"{campaign.done}{of} trials done"
    pruned = f", {campaign.pruned} of them pruned" if campaign.pruned else ""
    failed = f", {campaign.failed} of them failed" if campaign.failed else ""
    ended = f"; search ended: {campaign.ended}" if campaign.ended else ""
    running = "" if leaderboard.winners else "; no winner chosen yet"
    return done + pruned + failed + ended + running


def _meaning_notes(campaign: Summary) -> list[str]:
    """Say what the columns of means and costs are."""
    found = [campaign.precision] if campaign.precision else []
    searched = sorted({goal.metric for goal in campaign.goals if goal.metric != goal.report})
    if searched:
        found.append(f"searched: the weighted mean of what the sampler saw ({', '.join(searched)})")
    if len({goal.weight for goal in campaign.goals}) > 1:
        weights = ", ".join(f"{goal.task} {goal.weight:g}" for goal in campaign.goals)
        found.append(f"mean: weighted by {weights}")
    if campaign.normalize == "best_expert":
        found.append(
            "mean: of every task's value as a share of the best expert's on the same items"
        )
    if campaign.costs and campaign.mode != "mean":
        found.append("costs: relative to the base's; objectives of their own")
    elif campaign.costs:
        costs = campaign.costs.items()
        terms = ", ".join(f"{weight:g} × {cost.replace('_', ' ')}" for cost, weight in costs)
        upward = any(goal.higher_is_better for goal in campaign.goals)
        mean = "the mean" if upward or campaign.normalize == "best_expert" else "-1 × the mean,"
        found.append(f"{NET}: {mean} less {terms}; costs are relative to the base's")
    return found


def _reached(row: Row, constraint: Constraint, position: int, split: Split) -> str:
    scores = row.splits.get(split)
    if scores is None or position >= len(scores.violations):
        return ""
    value = scores.costs.get(constraint.cost)
    if constraint.task:
        reached = scores.tasks.get(constraint.task, {}).get(constraint.metric)
        value = None if reached is None else reached.value
    if value is None:
        return f", {row.name} has no value: not met"
    met = "met" if scores.violations[position] <= 0 else "missed"
    return f", {row.name} has {value:.3f}: {met}"
