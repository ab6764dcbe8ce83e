"""The store: the one way to a results folder, for the driver that writes and for all who read.

Two transactions a trial: `asked` (before anybody works on it) and `told` (state, values and per-item
scores together). Each is on the disk before the call returns, so that a process killed at any moment
loses only the work that was then running.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from evomerge.candidate.trial import Entry, Gradients, Job, Outcome, Split
from evomerge.config import Campaign
from evomerge.errors import ResultsError
from evomerge.merge.user_methods import FILE as METHODS_FILE
from evomerge.store import folder as folders
from evomerge.store import records
from evomerge.store.campaign_file import as_run, with_facts, with_trials
from evomerge.store.dashboard import attributes, note
from evomerge.store.database import Backups
from evomerge.store.encoding import Ids, outcome_to_json, values_to_json
from evomerge.store.events import EventLog
from evomerge.store.findings import Findings

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

_SAVING = "saving"


class Store:
    """An open results folder. Use `create` or `open`, and close it: it is a context manager.

    Attributes:
        folder: The results folder.
        campaign: As it was run, with what `extend` added to the budget of trials.
        facts: What results depend on beside the campaign: versions, hashes of models, tasks and items.
        planned_trials: What the sampler plans for; `extend` leaves it as it was when the campaign began.
        ended: What ended the last run of the search, such as `trials`; None: nothing yet.
        finished: Whether all is done and saved, and nothing was asked for since.
        saving: Whether all is done but to save the winner.
        arrays: Bytes by key: those that candidates name by digest, and what others keep there.
        findings: What explanations of the winner found out.
    """

    def __init__(self, folder: Path, lock: folders.FolderLock | None) -> None:
        self.folder, self._lock = folder, lock
        path = folder / folders.DATABASE
        self._log = EventLog.open(path, write=lock is not None)
        if lock is not None:
            from evomerge.store import optuna_study  # only writers wait for Optuna and SQLAlchemy

            optuna_study.close_storage(optuna_study.open_storage(path))
        self.arrays = self._log.arrays
        self.findings = Findings(self._log, self._ids)
        begun, *later = self._log.read("begun", "budget", "ended", "finished")
        self.facts: Mapping[str, Any] = begun.content["facts"]
        self._items = {
            (task, split): tuple(ids)
            for task, of_task in self.facts.get("items", {}).items()
            for split, ids in of_task.items()
        }
        created = as_run(folder, begun.content["campaign"], self.facts, write=lock is not None)
        state = {event.kind: event.content["now"] for event in later}
        self.campaign = with_trials(created, state.get("budget", created.search.trials))
        self.planned_trials = created.planned_trials
        self.ended: str | None = state.get("ended")
        self.finished: bool = state.get("finished") is True
        self.saving: bool = state.get("finished") == _SAVING
        self._backups, self._unsaved = Backups(folder), False

    @classmethod
    def create(
        cls,
        folder: Path,
        campaign: Campaign,
        facts: Mapping[str, Any],
        *,
        directions: Sequence[str],
        force: bool = False,
        tasks: Path | None = None,
        methods: str | None = None,
    ) -> Store:
        """Begin a campaign in a new folder, locked for this process.

        Args:
            folder: The results folder, made if need be.
            campaign: The settings.
            facts: JSON values that the results depend on.
            directions: `maximize` or `minimize`, one an objective value that `told` will get.
            force: Replace the campaign that is there; files that evomerge did not write stay.
            tasks: A folder of tasks that were made of prompts, to be kept with the campaign.
            methods: Text of the file that declares its merge methods, to be kept, too.

        Raises:
            ResultsError: The folder exists and may not be used, or another process writes to it.
            EvomergeError: The disk is full or not writable.
        """
        from evomerge.store.optuna_study import create_database

        folder = Path(folder)
        folders.refuse_existing(folder, force=force)
        folder.mkdir(parents=True, exist_ok=True)
        lock = folders.FolderLock(folder)
        with ExitStack() as undo:
            undo.callback(lock.release)
            folders.clear(folder)
            folders.keep_tasks(tasks, folder)
            if methods is not None:
                folders.write_whole(folder / METHODS_FILE, methods)
            folders.write_whole(folder / folders.CAMPAIGN, with_facts(campaign, facts))
            create_database(folder, campaign, facts, directions)
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
            ResultsError: The folder holds no campaign, the database is damaged or of another evomerge, the
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
        """Record all that happens in the block in one transaction, or nothing of it."""
        outermost = not self._log.is_open
        with self._log.transaction():
            yield
        if outermost and self._unsaved and self._backups.due:
            self.backup()

    def asked(
        self,
        entry: Entry,
        params: Mapping[str, float],
        distributions: Mapping[str, BaseDistribution],
    ) -> None:
        """Record a trial before it is handed out; one transaction.

        Args:
            entry: With the number after the last one's.
            params: Its point of the space.
            distributions: Of each of `params`.

        Raises:
            ValueError: It is not a trial.
        """
        from evomerge.store import optuna_study

        number, candidate = records.number_of(entry), entry.candidate
        with self._log.transaction() as connection:
            content = {"number": number, "params": dict(params)}
            content["candidate"] = candidate.text()
            self.arrays.keep_all(candidate.arrays())
            self._log.append("asked", content, entry.key)
            attrs = {"method": candidate.label()}
            optuna_study.insert_running(connection, number, params, distributions, attrs)

    def told(
        self,
        entry: Entry,
        outcome: Outcome,
        values: Sequence[float] | None,
        *,
        pruned: bool = False,
    ) -> None:
        """Record what came of a trial, state, values and per-item scores together; one transaction.

        Args:
            entry: As it was asked.
            outcome: Its search scores (of a pruned trial: those of the items it was scored on), or its
                failure.
            values: Finite objective values (of a pruned trial: their estimates); None after a failure.
            pruned: It was stopped before its last item.

        Raises:
            ValueError: It was not asked, or was told already.
        """
        from evomerge.store import optuna_study

        number = records.number_of(entry)
        done = sum(len(one.items) for one in outcome.scores.values()) if pruned else None
        shown = attributes(outcome, values, done), note(self.folder, entry, outcome)
        with self.together():
            self._refuse_unless_asked("asked", "told", entry.key, entry.name)
            content = {
                "number": number,
                "state": "failed" if values is None else "pruned" if pruned else "complete",
                "values": None if values is None else list(values),
                "outcome": outcome_to_json(outcome, self._ids("search")),
            }
            if outcome.candidate is not None:
                self.arrays.keep_all(outcome.candidate.arrays())
            self._log.append("told", content, entry.key, values_to_json(outcome))
            optuna_study.finish(self._log.connection, number, values, *shown, done)
            self._unsaved = True

    def gradient_asked(
        self,
        descent: int,
        step: int,
        items: Mapping[str, tuple[int, ...]],
        params: Mapping[str, float],
    ) -> None:
        """Record a step of a descent before anybody works on it, as in `StoredGradient`; one transaction.

        Raises:
            ValueError: The step was asked before.
        """
        key = records.step_key(descent, step)
        with self._log.transaction():
            if self._log.has("gradient asked", key):
                raise ValueError(f"{key} was asked before")
            content = {"descent": descent, "step": step, "items": items, "params": dict(params)}
            self._log.append("gradient asked", content, key)

    def gradient_told(
        self,
        descent: int,
        step: int,
        loss: float | None,
        gradients: Mapping[str, float],
        failure: str | None = None,
        cost_items: int = 0,
        found: Gradients = Gradients(),  # noqa: B008 - frozen
    ) -> None:
        """Record what came of a step, as in `StoredGradient`, `found` as it was; one transaction.

        Raises:
            ValueError: The step was not asked, or was told already; or the loss is not finite: a failure.
        """
        if loss is not None and not math.isfinite(loss):
            raise ValueError(f"a loss of {loss} is not finite: tell a failure")
        key = records.step_key(descent, step)
        with self._log.transaction():
            self._refuse_unless_asked("gradient asked", "gradient told", key, key)
            content = {
                "loss": loss,
                "gradients": dict(gradients),
                "failure": failure,
                "cost_items": cost_items,
                "failure_trace": "" if found.failure is None else found.failure.trace,
                "cost": asdict(found.cost),
                "worker": found.worker,
            }
            self._log.append("gradient told", content, key)

    def add_baseline(self, params: Mapping[str, float], values: Sequence[float]) -> None:
        """Record a point that is told to the sampler but was asked for by no trial."""
        self._log.append("baseline", {"params": dict(params), "values": list(values)})

    def record(self, job: Job, outcome: Outcome) -> None:
        """Record what came of a parent, a baseline or a finalist; the last record of it on a split holds."""
        entry, candidate = job.entry, outcome.candidate or job.entry.candidate
        content = {
            "key": entry.key,
            "kind": entry.role if entry.number is None else "finalist",
            "number": entry.number,
            "split": job.split,
            "candidate": candidate.text(),
            "outcome": outcome_to_json(outcome, self._ids(job.split)),
        }
        with self._log.transaction():
            self.arrays.keep_all(candidate.arrays())
            key = f"{entry.key} on {job.split}"
            self._log.append("evaluated", content, key, values_to_json(outcome))

    def trials(self) -> tuple[records.StoredTrial, ...]:
        """Return every trial, in the order of their numbers."""
        return records.read_trials(self._log, self._ids("search"))

    def gradient_steps(self) -> tuple[records.StoredGradient, ...]:
        """Return every step of every descent, in the order in which they were asked."""
        return records.read_steps(self._log)

    def baselines(self) -> tuple[records.StoredBaseline, ...]:
        """Return what `add_baseline` recorded, in order."""
        return records.read_baselines(self._log)

    def evaluations(self) -> tuple[records.Evaluation, ...]:
        """Return what `record` recorded, in order; of the winner's rows the kind is `winner`."""
        return records.read_evaluations(self._log, self._ids)

    def evaluation(self, key: str, split: Split) -> Outcome | None:
        """Return the outcome recorded for a model (`trial.row_key`) and split, or None."""
        found = records.read_evaluations(self._log, self._ids, f"{key} on {split}")
        return found[0].outcome if found else None

    def choose(self, entry: Entry, how: str) -> None:
        """Make a recorded finalist the winner, durably; `how` is ignored where it is that already.

        Raises:
            ValueError: It is a parent or a baseline.
        """
        number, now = None if entry.role == "finalist" else records.number_of(entry), self.winner
        if now is None or now.number != number or (number is None and now.entry != entry):
            content = {"number": number, "name": entry.name, "how": how}
            self._log.append("chosen", {**content, "candidate": entry.candidate.text()})

    @property
    def winner(self) -> records.Winner | None:
        """The one winner, the last that was chosen; None before one is."""
        return records.read_winner(self._log)

    @property
    def holdout_readings(self) -> int:
        """How many winners, one after the other, were scored on the holdout items."""
        finalists = ("finalist", "winner")
        return sum(one.split == "holdout" and one.kind in finalists for one in self.evaluations())

    def extend(self, trials: int) -> None:
        """Add to the budget of trials, durably; where it had no limit, so many more may be asked for."""
        if trials:
            budget = self.campaign.search.trials
            total = trials + (len(self.trials()) if budget is None else budget)
            self._log.append("budget", {"now": total})
            self.campaign = with_trials(self.campaign, total)
            self.finish(False)

    def end(self, reason: str | None) -> None:
        """Record what ended the search, durably; None: it goes on."""
        if reason != self.ended:
            self._log.append("ended", {"now": reason})
            self.ended = reason

    def finish(self, finished: bool = True, *, saving: bool = False) -> None:
        """Record, durably, that all is done and saved; or that it is not, and only `saving` is left."""
        if (finished, saving) != (self.finished, self.saving):
            self._log.append("finished", {"now": _SAVING if saving else finished})
            self.finished, self.saving = finished, saving

    def write_file(self, name: str, text: str) -> None:
        """Write a file of the folder so that it is never seen half-written."""
        folders.write_whole(self.folder / name, text)

    def backup(self) -> None:
        """Copy the database to `study.backup.db`; `told` does it now and then."""
        self._backups.write(self._log.connection)
        self._unsaved = False

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return the range of each searched number, the same for all trials; empty before there is one."""
        from evomerge.store import optuna_study

        return optuna_study.read_distributions(self._log.connection)

    def optuna_study(self) -> optuna.Study:
        """Return a copy of the Optuna study as Optuna's own storage reads it; for looking only."""
        from evomerge.store import optuna_study

        return optuna_study.load_copy(self._log.connection, self._log.path, self.campaign.name)

    def close(self) -> None:
        """Let go of the file and the lock; harmless when called again."""
        self._log.connection.close()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _ids(self, split: Split) -> Ids:
        return lambda task: self._items.get((task, split), ())

    def _refuse_unless_asked(self, asked: str, told: str, key: str, name: str) -> None:
        if self._log.has(told, key):
            raise ValueError(f"{name} was told before")
        if not self._log.has(asked, key):
            raise ValueError(f"{name} was not asked")
