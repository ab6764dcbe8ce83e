from pathlib import Path

import pytest

from evomerge.candidate.trial import Entry, Estimate, Job, Outcome, TaskScores
from evomerge.cli import run_command
from evomerge.config import Campaign
from evomerge.errors import CampaignError, ResultsError
from evomerge.objective import Objectives
from evomerge.preflight.check import preflight
from evomerge.preflight.facts import facts_of
from evomerge.preflight.warm_start import POINTS, first_points
from evomerge.store import Store

ROOT = Path(__file__).parents[2]


def campaign(
    out, experts=("facts", "translation"), method="task_arithmetic", base="base", **search
):
    return Campaign.model_validate(
        {
            "name": "small",
            "models": {
                "base": f"zoo:{base}",
                "experts": [f"zoo:{name}" for name in experts],
                "dtype": "float32",
            },
            "space": {"method": method, "parameters": {"weight": {"low": 0.0, "high": 1.2}}},
            "objectives": [{"task": "zoo_facts", "metric": "gold_loglikelihood"}],
            "tasks_path": str(ROOT / "benchmarks" / "tasks"),
            "items": {"search": 2, "select": 2, "holdout": 2},
            "search": search,
            "out": str(out),
        }
    )


def outcome(value):
    scores = {"gold_loglikelihood": Estimate(value), "exact_match": Estimate(value)}
    return Outcome({"zoo_facts": TaskScores(("a",), {}, scores)})


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """Six trials of which the last but one is best and another one won; then one that failed."""
    folder = tmp_path_factory.mktemp("earlier") / "out"
    ready = preflight(campaign(folder))
    with Store.create(
        folder, ready.campaign, facts_of(ready), directions=Objectives(ready.campaign).directions
    ) as store:
        for number, value in enumerate((-3.0, -2.0, -5.0, -4.0, -1.0, -6.0)):
            point = {"weight/facts": number / 10, "weight/translation": 0.5}
            candidate = Entry(f"trial {number}", ready.space.candidate(point), number)
            store.asked(candidate, point, ready.space.distributions)
            store.told(candidate, outcome(value), (value,), pruned=number == 5)
        winner = Entry("trial 2", ready.space.candidate(point), 2)
        for earlier in (Entry("trial 0", winner.candidate, 0), winner):
            store.record(Job(earlier, "holdout"), outcome(-2.0))
            store.choose(earlier, "the best of 2")
    return folder


def points(folder, earlier, **changes):
    ready = preflight(campaign(folder, warm_start=str(earlier), **changes))
    return first_points(ready)


def test_without_one_there_are_no_points(tmp_path):
    assert first_points(preflight(campaign(tmp_path / "out"))) == []


def test_the_winner_comes_first_then_the_best(tmp_path, earlier):
    found = points(tmp_path / "out", earlier)
    assert [one["weight/facts"] for one in found] == [0.2, 0.4, 0.1, 0.0]
    assert len(found) == POINTS


def test_the_winner_comes_before_where_the_space_would_begin(tmp_path, earlier, monkeypatch):
    ready = preflight(campaign(tmp_path / "out", warm_start=str(earlier)))
    start = {"weight/facts": 0.9, "weight/translation": 0.9}
    monkeypatch.setattr(type(ready.space), "first", lambda self: (start,))
    first, *_, last = first_points(ready)
    assert (first["weight/facts"], last) == (0.2, start)


def test_an_expert_that_joined_starts_at_weight_0(tmp_path, earlier):
    found = points(tmp_path / "out", earlier, experts=("facts", "formats", "translation"))
    assert found[0] == {"weight/facts": 0.2, "weight/formats": 0.0, "weight/translation": 0.5}


def test_an_expert_that_left_is_dropped_and_equal_points_are_tried_once(tmp_path, earlier):
    assert points(tmp_path / "out", earlier, experts=("translation",)) == [
        {"weight/translation": 0.5}
    ]


def test_another_base_is_refused(tmp_path, earlier, monkeypatch):
    ready = preflight(campaign(tmp_path / "out", warm_start=str(earlier)))
    monkeypatch.setitem(ready.family.hashes, "base", "other")
    with pytest.raises(CampaignError, match="searched merges of another base"):
        first_points(ready)


def test_no_point_in_this_space_is_refused(tmp_path, earlier):
    with pytest.raises(CampaignError, match=r"no trial of .* lies in this space") as caught:
        points(tmp_path / "out", earlier, method="ties")
    assert caught.value.field == "search.warm_start"


@pytest.mark.parametrize("command", ["check", "search"])
def test_a_folder_that_is_none_is_refused_before_any_time_is_spent(tmp_path, capsys, command):
    file, out = tmp_path / "c.yaml", tmp_path / "out"
    file.write_text(campaign(out, warm_start=str(tmp_path / "nowhere")).to_yaml())
    line = 1 + next(
        i for i, text in enumerate(file.read_text().split("\n")) if "warm_start" in text
    )
    assert run_command([command, str(file)]) == 2
    assert capsys.readouterr().err == (
        f"evomerge: {file}:{line}: search.warm_start: {tmp_path}/nowhere: no such folder; expected a "
        "results folder of `evomerge search`\n"
    )
    assert not out.exists()


def test_without_a_file_the_refusal_names_the_field(tmp_path):
    with pytest.raises(ResultsError, match="no such folder") as caught:
        points(tmp_path / "out", tmp_path / "nowhere")
    assert (caught.value.field, caught.value.line) == ("search.warm_start", None)
