"""The store: the one way to a results folder, for the driver that writes and for all who read.

Two transactions a trial: `asked` (before anybody works on it) and `told` (state, values and per-item
scores together). Each is on the disk before the call returns, so that a process killed at any moment
loses only the work that was then in flight.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import optuna
from optuna.distributions import BaseDistribution
from sqlalchemy import insert, select, true

from evomerge.candidate.trial import Entry, Job, Outcome, Split
from evomerge.config import Campaign
from evomerge.errors import ResultsError
from evomerge.store import folder as folders
from evomerge.store.backup import Backups
from evomerge.store.campaign_file import as_run, with_facts, with_trials
from evomerge.store.creation import create_study
from evomerge.store.database import copied_optuna_storage, plain
from evomerge.store.encoding import encode_json
from evomerge.store.event_log import EventLog
from evomerge.store.gradient_rows import insert_step, read_steps, update_step
from evomerge.store.opening import open_database
from evomerge.store.optuna_tables import DistributionTexts
from evomerge.store.outcomes import (
    ItemSets,
    NewEvaluation,
    PackedOutcome,
    read_evaluations,
    replace_evaluation,
)
from evomerge.store.recipe_forms import RecipeForms
from evomerge.store.records import (
    Asked,
    Evaluation,
    StoredBaseline,
    StoredGradient,
    StoredTrial,
    Told,
    Winner,
)
from evomerge.store.tables import BASELINES, EVALUATIONS, META
from evomerge.store.trial_rows import insert_asked, read_trials, update_told
from evomerge.store.winner_rows import (
    count_holdout_readings,
    insert_winner,
    read_winner,
    with_winner,
)

Direction = Literal["maximize", "minimize"]


class Store:
    """An open results folder. Use `create` or `open`, and close it: it is a context manager.

    Attributes:
        folder: The results folder.
        campaign: As it was run, with what `extend` added to the budget of trials.
        facts: What results depend on beside the campaign: versions, hashes of models, tasks and items.
        directions: `maximize` or `minimize`, one an objective value.
        planned_trials: What the sampler plans for; `extend` leaves it as it was when the campaign began.
        ended: What ended the last run of the search, such as `trials`; None: nothing yet.
        finished: Whether all is done and saved, and nothing was asked for since.
    """

    def __init__(self, folder: Path, lock: folders.FolderLock | None) -> None:
        self.folder, self._lock = folder, lock
        self._path = folder / folders.DATABASE
        self._engine = open_database(self._path, write=lock is not None)
        self._item_sets, self._texts, self._forms = ItemSets(), DistributionTexts(), RecipeForms()
        self._log = EventLog(self._engine, self._path, [self._item_sets.forget, self._forms.forget])
        with self._log.transaction() as connection:
            meta = {row.key: row.value for row in connection.execute(select(META))}
        self._study_id = int(meta["study_id"])
        self.facts: Mapping[str, Any] = json.loads(meta["facts"])
        self.directions: tuple[Direction, ...] = tuple(json.loads(meta["directions"]))
        created = as_run(folder, meta["campaign"], self.facts, write=lock is not None)
        self.campaign = with_trials(created, json.loads(meta["trials"]))
        self.planned_trials = int(meta.get("planned_trials", created.planned_trials))
        self.ended: str | None = json.loads(meta.get("ended", "null"))
        self.finished: bool = json.loads(meta.get("finished", "false"))
        self._backups, self._told = Backups(folder, self.campaign.planned_trials), 0

    @staticmethod
    def refuse_existing(folder: Path, *, force: bool) -> None:
        """Refuse, as `folder.refuse_existing` does, before anything is done for the campaign."""
        folders.refuse_existing(Path(folder), force=force)

    @classmethod
    def create(
        cls,
        folder: Path,
        campaign: Campaign,
        facts: Mapping[str, Any],
        *,
        directions: Sequence[Direction],
        force: bool = False,
    ) -> Store:
        """Begin a campaign in a new folder, locked for this process.

        Args:
            folder: The results folder, made if need be.
            campaign: The settings.
            facts: JSON values that the results depend on.
            directions: One an objective value that `told` will get.
            force: Replace the campaign that is there; files that evomerge did not write stay.

        Raises:
            ResultsError: The folder exists and may not be used, or another process writes to it.
        """
        folder = Path(folder)
        folders.refuse_existing(folder, force=force)
        folder.mkdir(parents=True, exist_ok=True)
        lock = folders.FolderLock(folder)
        with ExitStack() as undo:
            undo.callback(lock.release)
            folders.clear(folder)
            folders.write_whole(folder / folders.CAMPAIGN, with_facts(campaign, facts))
            create_study(folder, campaign, facts, directions)
            store = cls(folder, lock)
            undo.pop_all()
        return store

    @classmethod
    def open(cls, folder: Path, *, write: bool) -> Store:
        """Open a folder in which a campaign was begun.

        Args:
            folder: The results folder.
            write: Lock it for this process, and check the whole database first.

        Raises:
            ResultsError: There is no campaign, the database is damaged or of a newer evomerge, the
                campaign file was changed, or another process writes to the folder (named by host and
                process).
        """
        folder = Path(folder)
        if not folders.is_campaign(folder):
            found = "holds no campaign" if folder.is_dir() else "no such folder"
            raise ResultsError(
                f"{found}; expected a results folder of `evomerge search`", file=folder
            )
        lock = folders.FolderLock(folder) if write else None
        with ExitStack() as undo:
            if lock is not None:
                undo.callback(lock.release)
            store = cls(folder, lock)
            undo.pop_all()
        return store

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make one transaction of all that is recorded in the block: all of it, or nothing."""
        with self._log.events():
            yield
        self._back_up_if_due()

    def asked(
        self,
        entry: Entry,
        params: Mapping[str, float],
        distributions: Mapping[str, BaseDistribution],
    ) -> None:
        """Record a trial before it is handed out, with what `Asked` says of it; one transaction."""
        self.asked_many([Asked(entry, params, distributions)])

    def asked_many(self, entries: Sequence[Asked]) -> None:
        """Record several trials, in their order, before they are handed out; one transaction for all."""
        with self._log.events() as (connection, next_seq):
            for trial in entries:
                insert_asked(
                    connection, self._study_id, trial, self._texts, self._forms, next_seq()
                )

    def told(
        self,
        entry: Entry,
        outcome: Outcome,
        values: Sequence[float] | None,
        *,
        pruned: bool = False,
    ) -> None:
        """Record what came of one trial, state, values and per-item scores together; see `told_many`.

        Args:
            entry: As for `Told`, and so are the others.
            outcome: Scores or failure.
            values: Finite objective values.
            pruned: It was stopped before its last item.
        """
        self.told_many([Told(entry, outcome, values, pruned)])

    def told_many(self, entries: Sequence[Told]) -> None:
        """Record what came of several trials, in their order; one transaction for all, or none of them.

        Raises:
            ValueError: One of them was not asked, or was told already.
        """
        packed = [PackedOutcome.of(trial.outcome) for trial in entries]
        with self._log.events() as (connection, next_seq):
            told = [(trial, one, next_seq()) for trial, one in zip(entries, packed, strict=True)]
            update_told(connection, self._item_sets, told)
        self._told += len(entries)
        self._back_up_if_due()

    def gradient_asked(
        self,
        descent: int,
        step: int,
        items: Mapping[str, tuple[int, ...]],
        params: Mapping[str, float],
    ) -> int:
        """Record a step of a descent before anybody works on it; one transaction.

        Arguments and errors are those of `gradient_rows.insert_step`.

        Returns:
            Its place in the order of events.
        """
        with self._log.events() as (connection, next_seq):
            seq = next_seq()
            insert_step(connection, descent, step, items, params, seq)
        return seq

    def gradient_told(
        self,
        descent: int,
        step: int,
        loss: float | None,
        gradients: Mapping[str, float],
        failure: str | None = None,
        cost_items: int = 0,
        trace: str = "",
    ) -> int:
        """Record what came of a step; one transaction.

        Arguments and errors are those of `gradient_rows.update_step`.

        Returns:
            Its place in the order of events.
        """
        with self._log.events() as (connection, next_seq):
            seq = next_seq()
            update_step(connection, descent, step, loss, gradients, failure, cost_items, seq, trace)
        return seq

    def gradient_steps(self) -> tuple[StoredGradient, ...]:
        """Return every step of every descent, in the order in which they were asked."""
        with self._log.transaction() as connection:
            return read_steps(connection)

    def add_baseline(self, params: Mapping[str, float], values: Sequence[float]) -> None:
        """Record a point that is told to the sampler but was asked for by no trial."""
        with self._log.events() as (connection, next_seq):
            connection.execute(
                "INSERT INTO evomerge_baselines (seq, params, objectives) VALUES (?, ?, ?)",
                (next_seq(), encode_json(dict(params)), encode_json(list(values))),
            )

    def record(self, job: Job, outcome: Outcome, kind: str) -> None:
        """Record what is no trial's search score: parents, baselines, finalists.

        Args:
            job: What was evaluated, and on which split; an earlier record of both is replaced.
            outcome: What came of it.
            kind: `base`, `expert`, `baseline` or `finalist`, which the winner is too.

        Raises:
            ValueError: `winner`, which is chosen.
        """
        if kind == "winner":
            raise ValueError("record a winner's scores as a finalist's, and choose it")
        new = NewEvaluation(job.entry, kind, job.split, PackedOutcome.of(outcome))
        with self._log.transaction() as connection:
            replace_evaluation(plain(connection), self._item_sets, new)

    def trials(self) -> tuple[StoredTrial, ...]:
        """Return every trial, in the order of their numbers."""
        with self._log.transaction() as connection:
            return read_trials(connection, self._study_id, self._item_sets)

    def baselines(self) -> tuple[StoredBaseline, ...]:
        """Return what `add_baseline` recorded, in order."""
        with self._log.transaction() as connection:
            rows = connection.execute(select(BASELINES).order_by(BASELINES.c.seq)).all()
        return tuple(
            StoredBaseline(json.loads(row.params), tuple(json.loads(row.objectives)), row.seq)
            for row in rows
        )

    def evaluations(self) -> tuple[Evaluation, ...]:
        """Return what `record` recorded, in order; of the winner's rows the kind is `winner`."""
        with self._log.transaction() as connection:
            found = read_evaluations(connection, self._item_sets, true())
            return tuple(with_winner(connection, found))

    def evaluation(self, key: str, split: Split) -> Outcome | None:
        """Return the outcome recorded for a model (`trial.row_key`) and split, or None."""
        condition = (EVALUATIONS.c.key == key) & (EVALUATIONS.c.split == split)
        with self._log.transaction() as connection:
            found = read_evaluations(connection, self._item_sets, condition)
        return found[0].outcome if found else None

    def choose(self, entry: Entry, how: str) -> None:
        """Make a trial the winner, durably; one transaction.

        Args:
            entry: A trial.
            how: What chose it; of no account where it is the winner already.

        Raises:
            ValueError: It is no trial.
        """
        with self._log.transaction() as connection:
            insert_winner(plain(connection), entry, how)

    @property
    def winner(self) -> Winner | None:
        """The one winner; None before one is chosen."""
        with self._log.transaction() as connection:
            return read_winner(connection)

    @property
    def holdout_readings(self) -> int:
        """How many winners, one after the other, were scored on the holdout items."""
        with self._log.transaction() as connection:
            return count_holdout_readings(connection)

    def extend(self, trials: int) -> None:
        """Add to the budget of trials, durably; where it had no limit, so many more may be asked for."""
        if trials:
            budget = self.campaign.search.trials
            total = trials + (len(self.trials()) if budget is None else budget)
            self.campaign = with_trials(self.campaign, total)
            self._set_meta("trials", total)
            self.finish(False)

    def end(self, reason: str | None) -> None:
        """Record what ended the search, durably; None: it goes on."""
        if reason != self.ended:
            self._set_meta("ended", reason)
            self.ended = reason

    def finish(self, finished: bool = True) -> None:
        """Record, durably, that all is done and saved; or that it is not."""
        if finished != self.finished:
            self._set_meta("finished", finished)
            self.finished = finished

    def write_file(self, name: str, text: str) -> None:
        """Write a file of the folder so that it is never seen half-written."""
        folders.write_whole(self.folder / name, text)

    def backup(self) -> None:
        """Copy the database to `study.backup.db`; `told` does it now and then."""
        with self._engine.connect() as connection:
            self._backups.write(plain(connection))

    def optuna_study(self) -> optuna.Study:
        """Return a copy of the Optuna study as Optuna's own storage reads it; for looking only."""
        storage = copied_optuna_storage(self._engine, self._path)
        return optuna.load_study(study_name=self.campaign.name, storage=storage)

    def close(self) -> None:
        """Let go of the file and the lock; harmless when called again."""
        self._engine.dispose()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _set_meta(self, key: str, value: int | str | None) -> None:
        row = {"key": key, "value": encode_json(value)}
        with self._log.transaction() as connection:
            connection.execute(insert(META).prefix_with("OR REPLACE"), row)

    def _back_up_if_due(self) -> None:
        if self._told and not self._log.is_open:
            told, self._told = self._told, 0
            if self._backups.due(told):
                self.backup()
