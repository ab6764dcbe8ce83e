"""The store: the one way to a results folder, for the driver that writes and for all who read.

Two transactions a trial: `asked` (before anybody works on it) and `told` (state, values and per-item
scores together). Each is on the disk before the call returns, so that a process killed at any moment
loses only the work that was then in flight.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import optuna
from optuna.distributions import BaseDistribution
from sqlalchemy import Connection, Engine, func, insert, select, true, update

from evomerge import yaml_file
from evomerge.campaign import Campaign
from evomerge.errors import ResultsError
from evomerge.store import folder as folders
from evomerge.store import optuna_tables
from evomerge.store.campaign_file import difference, with_facts, with_trials
from evomerge.store.database import (
    check_database,
    close_optuna_storage,
    create_database,
    open_engine,
    open_optuna_storage,
    transaction,
)
from evomerge.store.encoding import decode_recipe, encode_json, encode_recipe
from evomerge.store.records import (
    Evaluation,
    ItemSets,
    PackedOutcome,
    StoredBaseline,
    StoredTrial,
    insert_evaluation,
    read_evaluations,
    read_trial_outcomes,
)
from evomerge.store.tables import BASELINES, EVALUATIONS, META, SCHEMA_VERSION, TRIALS
from evomerge.trial import Candidate, Job, Outcome, Split

Direction = Literal["maximize", "minimize"]


class Store:
    """An open results folder. Use `create` or `open`, and close it: it is a context manager.

    Attributes:
        folder: The results folder.
        campaign: As it was run, with what `extend` added to the budget of trials.
        facts: What results depend on beside the campaign: versions, hashes of models, tasks and items.
        directions: `maximize` or `minimize`, one an objective value.
    """

    def __init__(self, folder: Path, engine: Engine, lock: folders.FolderLock | None) -> None:
        self.folder = folder
        self._path = folder / folders.DATABASE
        self._engine, self._lock = engine, lock
        self._item_sets = ItemSets()
        with self._transaction() as connection:
            meta = {row.key: row.value for row in connection.execute(select(META))}
            latest = [TRIALS.c.asked_seq, TRIALS.c.told_seq, BASELINES.c.seq]
            used = [connection.execute(select(func.max(column))).scalar() for column in latest]
        self._next_seq = 1 + max((seq for seq in used if seq is not None), default=-1)
        self._study_id = int(meta["study_id"])
        self.facts: Mapping[str, Any] = json.loads(meta["facts"])
        self.directions: tuple[Direction, ...] = tuple(json.loads(meta["directions"]))
        self.campaign = with_trials(self._load_campaign(meta["campaign"]), int(meta["trials"]))

    @staticmethod
    def refuse_existing(folder: Path, *, force: bool) -> None:
        """Refuse a folder that `create` would refuse, before anything is done for the campaign.

        Raises:
            ResultsError: The folder exists (say: resume, another --out, or --force), or is no results
                folder at all.
        """
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
            _create_database(folder, campaign, facts, directions)
            store = cls._open(folder, lock)
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
            store = cls._open(folder, lock)
            undo.pop_all()
        return store

    def asked(
        self,
        candidate: Candidate,
        params: Mapping[str, float],
        distributions: Mapping[str, BaseDistribution],
    ) -> None:
        """Record a trial before it is handed out; one transaction.

        Args:
            candidate: With the number after the last one's.
            params: Its point of the space.
            distributions: Of each of `params`.
        """
        recipe, text = encode_recipe(candidate.recipe), encode_json(dict(params))
        attrs = {"method": candidate.recipe.method}
        with self._transaction() as connection:
            trial_id = optuna_tables.insert_running(
                connection, self._study_id, _number(candidate), params, distributions, attrs
            )
            connection.execute(
                insert(TRIALS).values(
                    number=candidate.number,
                    trial_id=trial_id,
                    name=candidate.name,
                    recipe=recipe,
                    params=text,
                    state="asked",
                    asked_seq=self._next_seq,
                )
            )
        self._next_seq += 1

    def told(self, candidate: Candidate, outcome: Outcome, values: Sequence[float] | None) -> None:
        """Record what came of a trial, state, values and per-item scores together; one transaction.

        Args:
            candidate: As it was asked.
            outcome: Its search scores, or its failure.
            values: Finite objective values; None after a failure.

        Raises:
            ValueError: The trial was not asked, or was told already.
        """
        packed = PackedOutcome.of(outcome)
        number = _number(candidate)
        with self._transaction() as connection:
            row = connection.execute(
                select(TRIALS.c.trial_id, TRIALS.c.state).where(TRIALS.c.number == number)
            ).first()
            if row is None or row.state != "asked":
                raise ValueError(f"trial {number} is {row.state if row else 'unknown'}, not asked")
            optuna_tables.finish(connection, row.trial_id, values)
            if outcome.failure is not None:
                reason = f"{outcome.failure.kind}: {outcome.failure.reason}"
                optuna_tables.set_user_attrs(connection, row.trial_id, {"failure": reason})
            connection.execute(
                update(TRIALS)
                .where(TRIALS.c.number == number)
                .values(
                    state="failed" if values is None else "complete",
                    objectives=None if values is None else encode_json(list(values)),
                    told_seq=self._next_seq,
                )
            )
            insert_evaluation(connection, self._item_sets, candidate, "trial", "search", packed)
        self._next_seq += 1

    def add_baseline(self, params: Mapping[str, float], values: Sequence[float]) -> None:
        """Record a point that is told to the sampler but was asked for by no trial."""
        with self._transaction() as connection:
            connection.execute(
                insert(BASELINES).values(
                    seq=self._next_seq,
                    params=encode_json(dict(params)),
                    objectives=encode_json(list(values)),
                )
            )
        self._next_seq += 1

    def record(self, job: Job, outcome: Outcome, kind: str) -> None:
        """Record what is no trial's search score: parents, baselines, finalists, the winner.

        Args:
            job: What was evaluated, and on which split; an earlier record of both is replaced.
            outcome: What came of it.
            kind: `base`, `expert`, `baseline`, `finalist` or `winner`.
        """
        packed = PackedOutcome.of(outcome)
        with self._transaction() as connection:
            insert_evaluation(connection, self._item_sets, job.candidate, kind, job.split, packed)

    def trials(self) -> tuple[StoredTrial, ...]:
        """Return every trial, in the order of their numbers."""
        with self._transaction() as connection:
            rows = connection.execute(select(TRIALS).order_by(TRIALS.c.number)).all()
            outcomes = read_trial_outcomes(connection, self._item_sets)
        return tuple(
            StoredTrial(
                number=row.number,
                params=json.loads(row.params),
                recipe=decode_recipe(row.recipe),
                state=row.state,
                outcome=outcomes.get(row.number),
                values=None if row.objectives is None else tuple(json.loads(row.objectives)),
                asked_seq=row.asked_seq,
                told_seq=row.told_seq,
            )
            for row in rows
        )

    def baselines(self) -> tuple[StoredBaseline, ...]:
        """Return what `add_baseline` recorded, in order."""
        with self._transaction() as connection:
            rows = connection.execute(select(BASELINES).order_by(BASELINES.c.seq)).all()
        return tuple(
            StoredBaseline(json.loads(row.params), tuple(json.loads(row.objectives)), row.seq)
            for row in rows
        )

    def evaluations(self) -> tuple[Evaluation, ...]:
        """Return what `record` recorded, in order."""
        with self._transaction() as connection:
            return tuple(read_evaluations(connection, self._item_sets, true()))

    def evaluation(self, name: str, split: Split) -> Outcome | None:
        """Return the outcome recorded for a name and split, or None."""
        condition = (EVALUATIONS.c.name == name) & (EVALUATIONS.c.split == split)
        with self._transaction() as connection:
            found = read_evaluations(connection, self._item_sets, condition)
        return found[0].outcome if found else None

    def extend(self, trials: int) -> None:
        """Add to the budget of trials, durably."""
        if trials:
            self.campaign = with_trials(self.campaign, self.campaign.search.trials + trials)
            total = str(self.campaign.search.trials)
            with self._transaction() as connection:
                connection.execute(update(META).where(META.c.key == "trials").values(value=total))

    def write_file(self, name: str, text: str) -> None:
        """Write a file of the folder so that it is never seen half-written."""
        folders.write_whole(self.folder / name, text)

    def optuna_study(self) -> optuna.Study:
        """Return the Optuna study as Optuna's own storage reads it; for looking only."""
        storage = open_optuna_storage(self._path)
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

    @classmethod
    def _open(cls, folder: Path, lock: folders.FolderLock | None) -> Store:
        path = folder / folders.DATABASE
        write = lock is not None
        engine = open_engine(path, write=write)
        with ExitStack() as undo:
            undo.callback(engine.dispose)
            check_database(engine, path, thorough=write)
            if write:
                close_optuna_storage(open_optuna_storage(path))
            undo.pop_all()
        return cls(folder, engine, lock)

    def _transaction(self) -> AbstractContextManager[Connection]:
        return transaction(self._engine, self._path)

    def _load_campaign(self, as_run: str) -> Campaign:
        """Read the campaign from the database; a file that says something else is refused."""
        file = self.folder / folders.CAMPAIGN
        run = Campaign.from_document(yaml_file.parse(as_run, path=file))
        if self._lock is not None:
            if not file.exists():
                self.write_file(folders.CAMPAIGN, with_facts(run, self.facts))
            elif (changed := difference(run, Campaign.load(file))) is not None:
                raise ResultsError(
                    "was changed since the campaign began; undo the change (evomerge resume takes "
                    "--trials and --workers), or start a new campaign",
                    file=file,
                    field=changed,
                )
        return run


def _create_database(
    folder: Path, campaign: Campaign, facts: Mapping[str, Any], directions: Sequence[Direction]
) -> None:
    """Fill a database aside, then put it in place: a folder with `study.db` is a whole campaign."""
    aside = folder / folders.UNFINISHED
    study_id = create_database(aside, campaign.name, directions)
    meta = {
        "schema": str(SCHEMA_VERSION),
        "study_id": str(study_id),
        "trials": str(campaign.search.trials),
        "directions": encode_json(list(directions)),
        "facts": encode_json(facts),
        "campaign": campaign.to_yaml(),
    }
    engine = open_engine(aside, write=True)
    try:
        with transaction(engine, aside) as connection:
            rows = [{"key": key, "value": value} for key, value in meta.items()]
            connection.execute(insert(META), rows)
    finally:
        engine.dispose()
    folders.rename_whole(aside, folder / folders.DATABASE)


def _number(candidate: Candidate) -> int:
    if candidate.number is None:
        raise ValueError(f"{candidate.name} is no trial: it has no number")
    return candidate.number
