from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.distributions import FloatDistribution

from evomerge.candidate.trial import Entry, Outcome
from evomerge.errors import ResultsError
from evomerge.store import Store, database
from evomerge.store.database import Backups, damaged

SPACE = {"w": FloatDistribution(0.0, 1.0)}
Make = Callable[..., Entry]


def run(store: Store, candidate: Make, outcome: Outcome, numbers: range) -> None:
    for number in numbers:
        store.asked(candidate(number), {"w": 0.5}, SPACE)
        store.told(candidate(number), outcome, [float(number)])


def test_the_first_outcome_is_backed_up_at_once_and_later_ones_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    clock = [100.0]
    monkeypatch.setattr(database.time, "monotonic", lambda: clock[0])
    backups = Backups(tmp_path)
    assert backups.due
    backups.write(store._log.connection)
    assert (tmp_path / "study.backup.db").exists()
    for one in (backups, Backups(tmp_path)):  # the other after a resume
        assert not one.due
    clock[0] += database.SECONDS_BETWEEN_BACKUPS
    assert backups.due


def test_a_copy_that_takes_long_is_made_seldom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    clock = [100.0]
    backups = Backups(tmp_path)

    def slow(aside: Path, path: Path) -> None:
        clock[0] += 5.0

    monkeypatch.setattr(database.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(database, "rename_whole", slow)
    backups.write(store._log.connection)
    clock[0] += 499.0
    assert not backups.due
    clock[0] += 1.0
    assert backups.due


@pytest.mark.parametrize("damage", ["text", "middle", "empty"])
def test_a_damaged_database_is_named_and_the_command_in_the_message_restores_it(
    store: Store, candidate: Make, scored: Outcome, damage: str
) -> None:
    run(store, candidate, scored, range(3))
    store.backup()
    run(store, candidate, scored, range(3, 4))
    store.close()
    file = store.folder / "study.db"
    content = file.read_bytes()
    file.write_bytes(
        {
            "text": b"no database" * 10_000,
            "middle": content[:8192] + b"\xff" * (len(content) - 16384) + content[-8192:],
            "empty": b"",
        }[damage]
    )
    with pytest.raises(
        ResultsError, match=r"study\.db: is damaged: .* go on from there with: "
    ) as e:
        Store.open(store.folder, write=True)
    command, _, then = str(e.value).partition(" with: ")[2].rpartition(" && ")
    assert then == f"evomerge resume {store.folder}"
    subprocess.run(command, shell=True, check=True)
    with Store.open(store.folder, write=True) as again:
        assert [t.values for t in again.trials()] == [(0.0,), (1.0,), (2.0,)]
        run(again, candidate, scored, range(3, 4))
        assert len(again.optuna_study().trials) == 4


def test_without_a_backup_the_message_says_so(tmp_path: Path) -> None:
    assert "no backup was found" in str(damaged("a page", tmp_path / "study.db"))


def test_no_room_for_a_copy_is_no_reason_to_stop(
    store: Store,
    candidate: Make,
    scored: Outcome,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(aside: Path, path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(database, "rename_whole", full)
    with caplog.at_level(logging.INFO):
        run(store, candidate, scored, range(2))
    assert "study.backup.db: not brought up to date: [Errno 28] No space left" in caplog.text
    assert len(store.trials()) == 2
    assert not [path for path in store.folder.iterdir() if path.name.endswith(".db.new")]


def test_a_new_campaign_takes_the_old_backup_away(
    store: Store, candidate: Make, scored: Outcome
) -> None:
    run(store, candidate, scored, range(1))
    store.close()
    assert (store.folder / "study.backup.db").exists()
    again = Store.create(store.folder, store.campaign, {}, directions=["maximize"], force=True)
    again.close()
    assert not (store.folder / "study.backup.db").exists()
