"""Campaigns compared: what is refused, what is paired, what is said."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from evomerge.candidate.trial import Outcome
from evomerge.errors import ResultsError, UserError
from evomerge.report.comparison import compare_folders, comparison, comparison_report
from evomerge.report.comparison.comparable import common
from evomerge.report.comparison.comparison import Comparison, Standing
from evomerge.report.comparison.effort import Milestone, checkpoints
from evomerge.report.comparison.layout import effort_grid, verdict
from evomerge.report.leaderboard import leaderboard
from evomerge.report.material import Material
from evomerge.report.scores import Value, paired
from evomerge.report.statistics import holm
from evomerge.report.summary import Goal
from evomerge.store import Store, keep_texts

Stores = Callable[..., Store]


@pytest.fixture
def other(make_store: Stores, lab: SimpleNamespace) -> Store:
    """A campaign on the same items whose winner is only fair."""
    store = make_store()
    lab.tell(store, 0, lab.outcome("trial 2", "search"))
    lab.record(store, "trial 0", "search", "finalist", lab.outcome("trial 2", "search"))
    lab.record(store, "trial 0", "holdout", "winner", lab.outcome("trial 2", "holdout"))
    return store


def sides(**stores: Store) -> dict[str, Material]:
    return {label: Material.of(store) for label, store in stores.items()}


def changed(store: Store, **changes: Any) -> Material:
    """A campaign with another summary on its leaderboard."""
    found = Material.of(store)
    board = leaderboard(store)
    board = replace(board, campaign=replace(board.campaign, **changes))
    found.__dict__["board"] = board
    return found


def test_the_others_are_tested_against_the_first(store: Store, other: Store) -> None:
    found = comparison(sides(a=store, b=other, c=other))
    assert [(entry.label, entry.row) for entry in found.entries] == [
        ("a", "trial 1"),
        ("b", "trial 0"),
        ("c", "trial 0"),
    ]
    one = found.differences[0]
    boards = leaderboard(other), leaderboard(store)
    outcomes = [
        board.row(name).splits["holdout"].outcome
        for board, name in zip(boards, ("trial 0", "trial 1"), strict=True)
    ]
    assert outcomes[0] is not None
    assert outcomes[1] is not None
    assert one.overall == paired(boards[1].aims["holdout"], outcomes[0], outcomes[1])
    assert one.overall.difference < 0
    assert set(one.tasks) == {"zoo_extraction", "zoo_tools", "zoo_facts"}
    ps = [d.overall.p for d in found.differences]
    assert tuple(d.p_corrected for d in found.differences) == holm(ps)
    assert verdict(found)[0].startswith("b is worse than a: -0.")
    assert verdict(comparison(sides(a=other, b=store)))[0].startswith("b is better than a: +0.")


def test_the_first_ones_weights_hold_for_all(
    other: Store, make_store: Stores, lab: SimpleNamespace
) -> None:
    weights = zip(lab.tasks, (5.0, 1.0, 1.0), strict=True)
    store = make_store(
        objectives=[{"task": t, "metric": "exact_match", "weight": w} for t, w in weights],
        normalize="best_expert",
    )
    lab.fill(store)
    found = comparison(sides(a=store, b=other))
    entry = found.entries[1]
    assert entry.objective is not None
    values = [value.value for value in entry.tasks.values() if value is not None]
    assert entry.objective.value == pytest.approx((5 * values[0] + values[1] + values[2]) / 7)
    settings = {one.key: one.values for one in found.settings}
    assert settings == {
        "objectives.zoo_extraction.weight": ("5.0", "1.0"),
        "normalize": ("best_expert", "none"),
    }


def test_the_last_split_that_all_have_is_shown(
    store: Store, make_store: Stores, lab: SimpleNamespace
) -> None:
    running = make_store()
    lab.fill(running, until="search")
    found = comparison(sides(a=store, b=running))
    assert found.split == "search"
    assert found.entries[1].row == "trial 1"
    blank = comparison(sides(a=store, b=running), "holdout")
    assert (blank.entries[1].row, blank.entries[1].objective) == ("no merge scored", None)
    assert blank.differences == ()
    assert "b and a are not tested" in verdict(blank)[0]
    assert "b has no scores there" in verdict(blank)[0]


def test_one_alone_is_refused(store: Store) -> None:
    with pytest.raises(ResultsError, match="expected two or more"):
        comparison(sides(a=store))


def test_like_campaigns_share_their_goals(store: Store) -> None:
    found = common(sides(a=store, b=store))
    assert found.goals == leaderboard(store).campaign.goals
    assert (found.left_out, found.faults, found.split) == ((), (), "holdout")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"versions": {"lm_eval": "0.4.9"}},
            r"version of lm_eval is 0\.4\.13 in a and 0\.4\.9 in b",
        ),
        (
            {"prompts": {"zoo_extraction": "00ff", "zoo_tools": "beef", "zoo_facts": "20ff"}},
            r'prompts of task "zoo_tools" is 10ff in a and beef in b',
        ),
    ],
)
def test_what_differs_is_refused_by_name(store: Store, changes: Any, message: str) -> None:
    pair = {"a": Material.of(store), "b": changed(store, **changes)}
    with pytest.raises(ResultsError, match=message) as error:
        comparison(pair)
    assert "--anyway" in str(error.value)
    found = comparison(pair, anyway=True)
    assert len(found.faults) == 1
    (grid, *_) = comparison_report(found).grids
    assert any(note.startswith("compared all the same: the ") for note in grid.notes)
    assert found.differences[0].overall.difference == 0


def test_another_metric_is_refused_and_has_no_value(store: Store) -> None:
    goals = tuple(replace(goal, report="acc") for goal in leaderboard(store).campaign.goals)
    with pytest.raises(ResultsError, match=r'metric of task "zoo_extraction" is exact_match in a'):
        comparison({"a": Material.of(store), "b": changed(store, goals=goals)})


def test_tasks_that_not_all_have_are_left_out(store: Store) -> None:
    goals = leaderboard(store).campaign.goals
    other = changed(store, goals=(replace(goals[0], task="own"), *goals[1:]))
    found = common({"a": Material.of(store), "b": other})
    assert [goal.task for goal in found.goals] == ["zoo_tools", "zoo_facts"]
    assert found.left_out == ("zoo_extraction", "own")


def test_nothing_in_common_is_refused_whatever_is_said(store: Store) -> None:
    other = changed(store, goals=(replace(leaderboard(store).campaign.goals[0], task="own"),))
    with pytest.raises(ResultsError, match="a and b have no task in common"):
        comparison({"a": Material.of(store), "b": other}, anyway=True)


def with_items(
    make_store: Stores,
    lab: SimpleNamespace,
    items: range,
    prompt: str = "what is {}?",
    rate: float = 0.5,
) -> Store:
    """A campaign of one task on items of these numbers, its winner right at this rate."""
    ids = [f"i{number}" for number in items]
    facts = {
        **lab.facts,
        "prompts": {lab.tasks[0]: f"hash of {items} {prompt}"},
        "items": {lab.tasks[0]: dict.fromkeys(("search", "select", "holdout"), ids)},
    }
    store = make_store(facts, objectives=[{"task": lab.tasks[0], "metric": "exact_match"}])
    texts = [(prompt.format(number), str(number)) for number in items]
    for split in ("search", "holdout"):
        keep_texts(store.arrays, split, {lab.tasks[0]: texts})
    drawn = np.random.default_rng([3, int(100 * rate)]).random(400)[list(items)] < rate
    scores = lab.task_scores(drawn.astype(float).tolist(), items=ids)
    lab.tell(store, 0, Outcome({lab.tasks[0]: scores}))
    lab.record(store, "trial 0", "holdout", "winner", Outcome({lab.tasks[0]: scores}))
    return store


def test_only_shared_items_are_paired_by_their_ids(
    make_store: Stores, lab: SimpleNamespace
) -> None:
    first = with_items(make_store, lab, range(120))
    second = with_items(make_store, lab, range(70, 200), rate=0.75)
    found = comparison(sides(a=first, b=second))
    assert (found.faults, found.search_faults) == ((), ("the search items differ between a and b",))
    (one,) = found.differences
    by_id = [
        dict(zip(scores.items, scores.metrics["exact_match"], strict=True))
        for store in (first, second)
        for scores in [next(e for e in store.evaluations()).outcome.scores[lab.tasks[0]]]
    ]
    shared = [f"i{number}" for number in range(70, 120)]
    gains = sum(by_id[1][item] > by_id[0][item] for item in shared)
    losses = sum(by_id[1][item] < by_id[0][item] for item in shared)
    assert one.overall.n == 50
    assert one.overall.difference == pytest.approx((gains - losses) / 50)
    assert one.overall.p == pytest.approx(stats.binomtest(gains, gains + losses).pvalue)
    assert found.entries[1].objective is not None
    assert found.entries[1].objective.n == 130
    notes = " ".join(comparison_report(found).grids[0].notes)
    assert "b against a is on the 50 items that both have, of 130 and 120" in notes


def test_other_items_or_other_prompts_of_them_are_refused(
    make_store: Stores, lab: SimpleNamespace
) -> None:
    first = with_items(make_store, lab, range(50))
    apart = with_items(make_store, lab, range(50, 100))
    with pytest.raises(ResultsError, match="a and b share no holdout items of task"):
        comparison(sides(a=first, b=apart))
    found = comparison(sides(a=first, b=apart), anyway=True)
    assert found.differences == ()
    assert "they share none with scores" in verdict(found)[0]
    shots = with_items(make_store, lab, range(25, 75), "an example. what is {}?")
    with pytest.raises(
        ResultsError, match=r"25 of 25 holdout items of task .* have another prompt"
    ):
        comparison(sides(a=first, b=shots))
    assert comparison(sides(a=first, b=shots), anyway=True).differences[0].overall.n == 25


def test_the_best_so_far_is_read_at_equal_effort(make_store: Stores, lab: SimpleNamespace) -> None:
    first, second = make_store(), make_store()
    for number, rates in enumerate(((0.2,) * 3, (0.9,) * 3, (0.5,) * 3)):
        lab.tell(first, number, lab.outcome(f"first {number}", "search", rates))
    lab.tell(second, 0, lab.outcome("second", "search", (0.6,) * 3))
    found = [one for one in checkpoints(sides(a=first, b=second)) if one.axis == "item_evaluations"]
    values = [
        [trial.values[0] for trial in store.trials() if trial.values] for store in (first, second)
    ]
    each = 3 * lab.items["search"]
    assert [one.limit for one in found] == [each // 4, each // 2, each]
    assert found[0].best == (None, None)
    assert found[-1].best == (values[0][0], values[1][0])
    longer = checkpoints(sides(a=first, b=first))
    at = {one.limit: one.best[0] for one in longer if one.axis == "item_evaluations"}
    assert at[3 * each] == max(values[0])


def test_searches_by_other_values_are_not_compared(
    store: Store, make_store: Stores, lab: SimpleNamespace
) -> None:
    other = make_store(normalize="best_expert")
    lab.fill(other)
    found = comparison(sides(a=store, b=other))
    assert found.checkpoints == ()
    assert found.search_faults == (
        "what is made of them (mode, normalize, costs) differ between a and b",
    )
    grids = comparison_report(found).grids
    assert any("not compared: what is made" in note for grid in grids for note in grid.notes)


def test_settings_are_compared_field_by_field(
    store: Store, make_store: Stores, lab: SimpleNamespace
) -> None:
    facts = {**lab.facts, "versions": {"evomerge": "0.2.0", "lm_eval": "0.4.13"}}
    facts["models"] = {"expert:tools": "0123456789abcdef" * 4}
    other = make_store(
        facts,
        search={"sampler": "random", "trials": 4, "finalists": 2},
        models={"base": "zoo:base", "experts": ["zoo:tools", "zoo:facts"]},
    )
    lab.fill(other)
    found = {one.key: one.values for one in comparison(sides(a=store, b=other)).settings}
    assert found == {
        "models.experts.extraction.model": ("zoo:extraction", None),
        "models.experts.facts.model": (None, "zoo:facts"),
        "search.sampler": ("cmaes", "random"),
        "versions.evomerge": ("0.1.0", "0.2.0"),
        "model hashes.expert:tools": (None, "0123456789ab"),
    }


def test_the_grids_have_a_line_a_campaign_and_a_setting(store: Store, other: Store) -> None:
    grid, effort, settings = comparison_report(comparison(sides(a=store, b=other))).grids
    assert [line.name for line in grid.lines] == ["a: trial 1", "b: trial 0"]
    assert list(grid.headers[1:]) == ["mean", "extraction", "tools", "facts"]
    notes = " ".join(grid.notes)
    assert "b is worse than a: -0." in notes
    assert "b against a by task: extraction -" in notes
    assert effort.headers == ("", "a", "b")
    assert settings.notes == ("the settings, versions and hashes are the same",)


def test_folders_are_compared_under_their_names(store: Store) -> None:
    folder = Path(store.folder)
    data = json.loads(compare_folders([folder, folder], "json"))
    assert [entry["label"] for entry in data["entries"]] == [str(folder), f"{folder} #2"]
    assert data["differences"][0]["overall"]["n"] == 240
    assert data["verdict"][0].startswith(f"no difference between {folder} #2 and {folder}")


def test_a_folder_without_a_campaign_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="holds no campaign"):
        compare_folders([Path(store.folder), tmp_path])


def test_a_comparison_in_every_format(store: Store) -> None:
    folders = [Path(store.folder)] * 2
    label = f"{store.folder} #2"
    table = compare_folders(folders, width=200)
    assert (
        f"no difference between {label} and {store.folder} that these items show: +0.000" in table
    )
    assert f"| {store.folder}: trial 1 |" in compare_folders(folders, "markdown").replace("\\", "")
    first, second = csv.DictReader(StringIO(compare_folders(folders, "csv")))
    assert first["difference"] == ""
    assert (second["campaign"], second["difference"], second["p"]) == (label, "0.0", "1.0")
    for wrong in ({"format": "hml"}, {"split": "holdot"}):
        with pytest.raises(UserError, match="unknown"):
            compare_folders(folders, **wrong)  # type: ignore[arg-type]


def test_the_searched_metrics_direction_marks_the_best_so_far() -> None:
    goal = Goal("lambada_openai", "perplexity", "acc", 1.0, True, False)
    found = Comparison(
        "holdout",
        (goal,),
        (
            Standing("a", "w", Value(0.6, n=50), {}, 10),
            Standing("b", "w", Value(0.5, n=50), {}, 10),
        ),
        (),
        checkpoints=(Milestone("item_evaluations", 1000.0, (8.0, 12.0)),),
        search_sign=-1.0,
        unpaired=("b",),
    )
    (line,) = effort_grid(found).lines
    assert [cell.best for cell in line.cells] == [True, False]
    assert "there is no paired test of these scores" in verdict(found)[0]
