"""An expert joins a finished campaign, or leaves it: what is known is kept, the winner is chosen again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge.candidate.trial import Entry, Split, row_key
from evomerge.config import Campaign, Objective
from evomerge.config.model_names import anchored, short_name
from evomerge.config.models import Expert
from evomerge.errors import ResultsError, UserError, nearest
from evomerge.preflight.check import preflight
from evomerge.preflight.facts import facts_of, refuse_changes
from evomerge.progress import Display, NoDisplay
from evomerge.report.grid import Column, Grid, numbers
from evomerge.report.leaderboard import Leaderboard, leaderboard
from evomerge.report.scores import Value
from evomerge.run import save_winner, setup_of, write_reports
from evomerge.search.activations import join_statistics
from evomerge.search.bench import Bench
from evomerge.search.reselection import Reselection
from evomerge.space.baselines import BASE, BEST, baselines
from evomerge.store import Store, keep_texts
from evomerge.workers import open_pool

ROSTER = "roster"
"""Under which key a store keeps who the experts are, once one joined or left."""
SHOWN: tuple[Split, ...] = ("select", "holdout")


@dataclass(frozen=True)
class MembershipChange:
    """What came of it.

    Attributes:
        leaderboard: As it is now.
        before: The winner until then.
        after: The winner now; the same where nothing better was found.
        joined: The expert that joined; None where one left.
        values: Split → task → reported value of the winner before, of the winner now, and of the expert
            that joined; None where it is not known.
    """

    leaderboard: Leaderboard
    before: Entry
    after: Entry
    joined: str | None
    values: Mapping[Split, Mapping[str, tuple[float | None, ...]]]

    def grid(self, split: Split = "holdout") -> Grid:
        """Return the values of a split as a table."""
        called = [f"before: {self.before.name}", f"now: {self.after.name}"]
        called += [] if self.joined is None else [self.joined]
        tasks = self.values[split]
        columns = [
            Column(name, [None if one is None else Value(one) for one in own])
            for name, own in zip(called, zip(*tasks.values(), strict=True), strict=True)
        ]
        names = [(task, "") for task in tasks]
        label = self.after.candidate.label()
        stays = "stays the winner" if self.after == self.before else f"is the winner, a {label}"
        return numbers(f"{self.after.name} {stays}; {split} items", names, columns, ())


@dataclass(frozen=True)
class Roster:
    """Who the experts are, and what counts beside the campaign's objectives.

    Attributes:
        experts: Name → model.
        goals: Further objectives.
    """

    experts: Mapping[str, str]
    goals: tuple[Objective, ...] = ()

    @classmethod
    def began(cls, store: Store) -> Roster:
        """Return who they were when the campaign began."""
        return cls({one.name: one.model for one in store.campaign.models.experts})

    @classmethod
    def of(cls, store: Store) -> Roster:
        """Return who they are now."""
        if not store.arrays.has(ROSTER):
            return cls.began(store)
        found = json.loads(store.arrays.get(ROSTER))
        return cls(found["experts"], tuple(map(Objective.model_validate, found["goals"])))

    def keep(self, store: Store) -> None:
        """Record it, durably."""
        goals = [goal.model_dump(mode="json") for goal in self.goals]
        text = json.dumps({"experts": dict(self.experts), "goals": goals})
        store.arrays.keep(ROSTER, text.encode())

    def campaign(self, began: Campaign) -> Campaign:
        """Return the campaign with these experts and goals."""
        experts = tuple(Expert(model=model, name=name) for name, model in self.experts.items())
        models = began.models.model_copy(update={"experts": experts})
        goals = (*began.objectives, *self.goals)
        return began.model_copy(update={"models": models, "objectives": goals})


def add(
    folder: Path,
    expert: str,
    *,
    name: str | None = None,
    task: str | None = None,
    metric: str | None = None,
    display: Display | None = None,
) -> MembershipChange:
    """Let an expert join a finished campaign.

    It is scored on the campaign's items. What it could be a part of is compared on the select items with the
    winner so far: an ensemble of base, experts and the winner's merge, whose router is fitted on the scores
    that are known; and that merge with the expert at several weights, of which the search items choose. The
    best of them is the winner, and takes the place of `best/`.

    Args:
        folder: The results folder.
        expert: A folder, a Hub id, `zoo:NAME`, or a LoRA adapter.
        name: What reports call it; None: the last part of its name.
        task: A task that it brings: all members are scored on it, too, and it counts as an objective.
        metric: Of that task; None: as of the campaign's first objective.
        display: Shows progress.

    Raises:
        UserError: The folder holds no finished campaign, the expert does not fit its family, or the task is
            unknown.
        EvomergeError: The expert cannot be scored.
    """
    name = name or short_name(expert)
    with finished(folder) as store:
        roster = Roster.of(store)
        if name in (*roster.experts, BASE, BEST):
            raise UserError(f'a member is called "{name}" already; give another --name')
        goals = roster.goals
        if task is not None:
            goals = (*goals, _goal(roster.campaign(store.campaign), task, metric))
        experts = {**roster.experts, name: anchored(expert, Path.cwd())}
        return _changed(store, Roster(experts, goals), display or NoDisplay(), joined=name)


def remove(folder: Path, expert: str, *, display: Display | None = None) -> MembershipChange:
    """Let an expert leave a finished campaign; its model need not be there any more.

    The winner's merge is made without it, the weights of the others as they were, and scored; an ensemble's
    router is fitted on the scores that are known. The better of both on the select items is the winner.

    Args:
        folder: The results folder.
        expert: Its name.
        display: Shows progress.

    Raises:
        UserError: The folder holds no finished campaign, or the expert is none of it, or the last.
        EvomergeError: A merge without it cannot be scored.
    """
    with finished(folder) as store:
        roster = Roster.of(store)
        if expert not in roster.experts:
            known = nearest(expert, roster.experts)
            raise UserError(f'no expert is called "{expert}"; {known}', file=folder)
        experts = {name: model for name, model in roster.experts.items() if name != expert}
        if not experts:
            raise UserError(f'"{expert}" is the last expert; nothing would be left', file=folder)
        return _changed(store, Roster(experts, roster.goals), display or NoDisplay(), left=expert)


@contextmanager
def finished(folder: Path) -> Iterator[Store]:
    """Open the folder of a finished campaign to write to it.

    Raises:
        ResultsError: It holds none, or is in use.
    """
    with Store.open(folder, write=True) as store:
        if store.winner is None or not store.finished:
            how = f"finish it with: evomerge resume {folder}"
            raise ResultsError(f"the campaign is not finished; {how}", file=folder)
        yield store


def _goal(campaign: Campaign, task: str, metric: str | None) -> Objective:
    if task in {goal.task for goal in campaign.objectives}:
        raise UserError(f'"{task}" is an objective already; leave it out', field="--task")
    first = campaign.objectives[0]
    settings: dict[str, Any] = {"task": task, "metric": metric or first.metric}
    if metric is None:
        settings["report"] = first.report
    return Objective.model_validate(settings)


def _changed(
    store: Store,
    roster: Roster,
    display: Display,
    *,
    joined: str | None = None,
    left: str | None = None,
) -> MembershipChange:
    """Score what is not known yet, choose, save."""
    assert store.winner is not None
    before = store.winner.entry
    campaign = with_workers(roster.campaign(store.campaign), 1)
    ready = preflight(campaign, results=store.folder, began_with=Roster.began(store).experts)
    facts = facts_of(ready)
    for warning in refuse_changes(store, with_those_that_left(facts, store)):
        display.say(warning)
    pool = open_pool(setup_of(ready), ready.campaign.workers)
    try:
        bench = Bench(store, ready.campaign, ready.items, pool, display)
        rows = baselines(ready.family.family, lambda method, wanted: None)
        parents = [row for row in rows if row.role != "baseline"]
        reads, place = ready.space.needs.statistics, None
        if reads and joined is not None:
            (entry,) = (row.entry for row in parents if row.name == joined)
            names = store.campaign.expert_names()
            began = {_model_of(store, name): number for number, name in enumerate(names)}
            place = join_statistics(bench, entry, reads, began)
        reselection = Reselection(
            bench,
            facts,
            parents,
            ready.family.family.num_layers,
            joined=joined,
            left=None if left is None else (left, _model_of(store, left)),
            place=place,
        )
        found = reselection.candidates(before)
        after = reselection.best(found)
        shown = [before, after, *([] if joined is None else [reselection.parents[joined]])]
        reselection.score(shown if left is None else [after], "holdout")
    finally:
        pool.close(force=True)
    with store.together():
        roster.keep(store)
        for split in ready.items.splits:
            keep_texts(store.arrays, split, ready.items.texts(split))
        store.finish(False, saving=True)  # a process killed from here on leaves that to `resume`
        store.choose(after, f"the best of {len(found)} on the select items, {reselection.what}")
    board = leaderboard(store)
    if after == before:
        write_reports(store, board)
    else:
        save_winner(store, after, board, display)
    store.finish()
    values = {
        split: {
            goal.task: tuple(reselection.values(one, split)[goal.task] for one in shown)
            for goal in ready.campaign.objectives
        }
        for split in SHOWN
    }
    return MembershipChange(board, before, after, joined, values)


def with_workers(campaign: Campaign, count: int) -> Campaign:
    """Return a campaign with another number of workers."""
    workers = campaign.workers.model_copy(update={"count": count})
    return campaign.model_copy(update={"workers": workers})


def with_those_that_left(facts: Mapping[str, Any], store: Store) -> dict[str, Any]:
    """Return facts in which models that are no longer asked for are as they were."""
    return {**facts, "models": {**store.facts["models"], **facts["models"]}}


def _model_of(store: Store, expert: str) -> str:
    """Return an expert's model as candidates name it."""
    key = row_key("expert", expert)
    (row, *_) = (one for one in store.evaluations() if one.key == key)
    return row.candidate.model_names()[-1]
