from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from evomerge.candidate import parts
from evomerge.candidate.trial import Entry
from evomerge.store.database import create_database, open_engine, plain, transaction
from evomerge.store.encoding import encode_numbers
from evomerge.store.recipe_forms import RecipeForms, read_forms, recipe_of


def test_recipes_of_one_form_share_a_row(tmp_path: Path, candidate: Callable[..., Entry]) -> None:
    path = tmp_path / "study.db"
    create_database(path, "a study", ["maximize"])
    engine = open_engine(path, write=True)
    forms = RecipeForms()
    recipes = [candidate(seed, weight).candidate for seed in (0, 1) for weight in (0.1 + 0.2, -0.0)]
    with transaction(engine, path) as connection:
        numbers = [forms.number(plain(connection), each, parts(each)) for each in recipes]
        again = RecipeForms()  # another process
        assert [again.number(plain(connection), one, parts(one)) for one in recipes] == numbers
        stored = read_forms(connection)
    engine.dispose()
    assert numbers[0] == numbers[1] != numbers[2] == numbers[3]  # the seed belongs to the form
    assert sorted(stored) == sorted(set(numbers))
    for recipe, number in zip(recipes, numbers, strict=True):
        found = recipe_of(stored[number], encode_numbers(parts(recipe).numbers))
        assert repr(found) == repr(recipe)


def test_what_was_rolled_back_is_written_again(
    tmp_path: Path, candidate: Callable[..., Entry]
) -> None:
    path = tmp_path / "study.db"
    create_database(path, "a study", ["maximize"])
    engine = open_engine(path, write=True)
    forms, recipe = RecipeForms(), candidate(0).candidate
    with engine.connect() as connection:
        forms.number(plain(connection), recipe, parts(recipe))
        connection.rollback()
    forms.forget()
    with transaction(engine, path) as connection:
        assert forms.number(plain(connection), recipe, parts(recipe)) in read_forms(connection)
    engine.dispose()
