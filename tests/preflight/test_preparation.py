"""What experts and teachers read before the first trial is counted, and takes time."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from evomerge.preflight.preparation import Preparation, preparation_of
from evomerge.preflight.rates import Rates, rates
from evomerge.space import Needs

GOLDS = {"zoo_facts": 8, "zoo_tools": 5}
RATES = Rates(searched=0.0, reported=0.0, gradient=0.0, read=2.0, written=3.0)


def reading(ready, *reads):
    """The campaign, with a method that reads statistics."""
    space = SimpleNamespace(needs=Needs(statistics=frozenset(reads)))
    return replace(ready, space=space)


def test_nothing_is_read_where_nothing_is_needed(checked):
    found = preparation_of(checked(), GOLDS)
    assert found == Preparation()
    assert (str(found), found.seconds(RATES)) == ("", 0.0)


def test_each_expert_reads_the_prompts_of_its_tasks_or_all(checked):
    found = preparation_of(reading(checked(), "importance"), GOLDS)
    assert found == Preparation(statistics=2 * 2 * 8, readings=1)
    assert found.seconds(RATES) == 32 * 2.0
    taught = checked("zoo_facts, metric", "zoo_facts, teacher: facts, metric")
    found = preparation_of(reading(taught, "importance", "moment"), GOLDS)
    assert found == Preparation(statistics=8 + 2 * 8, readings=2)
    assert found.seconds(RATES) == 24 * 2 * 2.0
    assert str(found) == "24 prompts read for statistics"
    for reads, readings in (
        (["merged"], 4),
        (["merged", "importance"], 5),
        (["merged", "moment"], 6),
    ):
        assert preparation_of(reading(taught, *reads), GOLDS).readings == readings


def test_a_file_of_the_users_is_read_by_nobody(checked, tmp_path):
    ready = reading(checked("name: small", f"name: small\nstatistics: {tmp_path}/mine"), "moment")
    assert preparation_of(ready, GOLDS) == Preparation()


def test_teachers_read_what_a_gradient_descends_to(checked):
    ready = checked("sampler: cmaes", "sampler: gradient")
    assert preparation_of(ready, GOLDS) == Preparation(taught=8 + 5)
    without = checked(
        "sampler: cmaes", "sampler: gradient", "zoo_facts, ", "zoo_facts, loss: gold, "
    )
    assert preparation_of(without, GOLDS) == Preparation(taught=5)


def test_teachers_answer_prompts_and_are_compared_with_on_the_others(checked):
    prompts = (SimpleNamespace(task="zoo_facts"),)
    found = preparation_of(replace(checked(), prompts=prompts), GOLDS)
    assert found == Preparation(answered=3 * 8, taught=2 * 8)
    assert found.seconds(RATES) == pytest.approx(40 * 2.0 + 24 * 3.0)
    assert str(found) == "24 answered by teachers, 16 items read by teachers"


def test_a_prompt_is_read_in_less_than_it_takes_to_answer_it(checked):
    found = rates(checked(), "cpu")
    assert 0 < found.read < found.read + found.written
    assert 2 * (found.read + found.written) == pytest.approx(found.searched, rel=0.05)
