from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.distributions import FloatDistribution

from evomerge.candidate.trial import Entry, Outcome
from evomerge.store.database import create_database, open_engine, plain, transaction
from evomerge.store.optuna_tables import DistributionTexts
from evomerge.store.outcomes import ItemSets, PackedOutcome
from evomerge.store.recipe_forms import RecipeForms
from evomerge.store.records import Asked, Told
from evomerge.store.trial_rows import insert_asked, read_trials, update_told

SPACE = {"a": FloatDistribution(0.0, 1.0), "b": FloatDistribution(0.0, 1.0)}


def test_a_trial_is_written_asked_then_told(
    tmp_path: Path, candidate: Callable[..., Entry], scored: Outcome
) -> None:
    path = tmp_path / "study.db"
    study_id = create_database(path, "a study", ["maximize"])
    engine = open_engine(path, write=True)
    sets = ItemSets()
    with transaction(engine, path) as connection:
        new = Asked(candidate(0, 0.1 + 0.2), {"b": 0.1 + 0.2, "a": 1.0}, SPACE)
        insert_asked(plain(connection), study_id, new, DistributionTexts(), RecipeForms(), 7)
        (asked,) = read_trials(connection, study_id, sets)
        told = Told(new.entry, scored, [1.0, 2.0])
        update_told(plain(connection), sets, [(told, PackedOutcome.of(scored), 8)])
        (done,) = read_trials(connection, study_id, sets)
    engine.dispose()
    assert (asked.state, asked.values, asked.asked_seq, asked.told_seq) == ("asked", None, 7, None)
    assert asked.entry == done.entry == new.entry
    assert list(asked.params.items()) == list(new.params.items())
    assert (done.state, done.values, done.asked_seq, done.told_seq) == (
        "complete",
        (1.0, 2.0),
        7,
        8,
    )


def test_what_has_no_number_is_no_trial(candidate: Callable[..., Entry], tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    study_id = create_database(path, "a study", ["maximize"])
    engine = open_engine(path, write=True)
    base = Asked(Entry("base", candidate(0).candidate), {}, {})
    with (
        pytest.raises(ValueError, match="base is no trial"),
        transaction(engine, path) as connection,
    ):
        insert_asked(plain(connection), study_id, base, DistributionTexts(), RecipeForms(), 0)
    engine.dispose()
