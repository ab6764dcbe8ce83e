from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest

from evomerge.candidate import Merge, Size
from evomerge.candidate.trial import Failure, FailureKind, Outcome
from evomerge.report.grid import difference, number, p_value, short_names, with_ends, with_p
from evomerge.report.layout import layout
from evomerge.report.leaderboard import Leaderboard, leaderboard
from evomerge.report.statistics import PairedTest
from evomerge.report.verdict import verdict
from evomerge.store import Store


def test_holdout_is_shown_once_it_was_read(board: Leaderboard) -> None:
    grid = layout(board)
    assert grid.title == "small: holdout items, 80 a task, exact_match"
    assert list(grid.headers[1:]) == ["mean", "extraction", "tools", "facts"]
    assert [line.name for line in grid.lines] == [
        "base",
        "extraction",
        "tools",
        "task arithmetic λ=0.4 (tuned)",
        "ties",
        "uniform average",
        "trial 1 (winner)",
    ]
    assert "2 more rows were not scored on holdout" in grid.notes


def test_each_value_stands_under_its_header(board: Leaderboard) -> None:
    grid = layout(board)
    winner = board.row("trial 1")
    values = [
        winner.splits["holdout"].tasks[task]["exact_match"].value
        for task in ("zoo_extraction", "zoo_tools", "zoo_facts")
    ]
    mean, *tasks = grid.lines[-1].cells
    assert [cell.text for cell in tasks] == [number(value) for value in values]
    assert mean.text == number(winner.objective("holdout") or 0)
    assert mean.best
    assert mean.interval.startswith("[0.")
    assert mean.half.startswith("±.0")


def test_a_missing_split_is_blank(make_store: Callable[..., Store], lab: SimpleNamespace) -> None:
    store = make_store()
    lab.fill(store, until="select")
    grid = layout(leaderboard(store), "holdout")
    assert [line.name for line in grid.lines] == ["base", "extraction", "tools"]
    assert {cell.text for line in grid.lines for cell in line.cells} == {""}
    assert "4 of 4 trials done, 1 of them failed; no winner chosen yet" in grid.notes


def test_what_ended_the_search_is_said(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    store = make_store(search={"hours": 1})
    lab.fill(store)
    store.end("hours")
    notes = layout(leaderboard(store), "holdout").notes
    assert "4 trials done, 1 of them failed; search ended: hours" in notes
    assert leaderboard(store).to_json()["campaign"]["ended"] == "hours"


def test_tests_are_quoted_on_the_split_they_were_made_on(board: Leaderboard) -> None:
    said = verdict(board).sentence
    for contrast in board.tests.contrasts:
        numbers = f"{with_ends(contrast.test)}, {p_value(contrast.p_corrected)}"
        assert f", {contrast.against}: {numbers}" in said
    assert layout(board, "holdout").notes[0] == said
    assert said not in layout(board, "select").notes


def test_one_objective_needs_no_mean(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    facts = {"higher_is_better": {"t": {"ppl": False}}}
    store = make_store(facts=facts, objectives=[{"task": "t", "metric": "ppl"}])
    for name, values in {"base": [4.0, 6.0], "tools": [2.0, 3.0]}.items():
        kind = "base" if name == "base" else "expert"
        lab.record(store, name, "search", kind, Outcome({"t": lab.task_scores(values, "ppl")}))
    grid = layout(leaderboard(store))
    assert list(grid.headers[1:]) == ["t"]
    assert [line.cells[0].best for line in grid.lines] == [False, True]
    assert grid.has_intervals


def test_what_the_sampler_saw_stands_beside_what_is_reported(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    goals = [{"task": t, "metric": "gold", "report": "acc", "weight": w} for t, w in ("a1", "b2")]
    goals = [{**goal, "weight": float(goal["weight"])} for goal in goals]
    store = make_store(facts={}, objectives=goals)
    scores = {t: lab.task_scores([-1.0, -2.0], "gold") for t in "ab"}
    lab.record(store, "base", "search", "base", Outcome(scores))
    grid = layout(leaderboard(store))
    assert list(grid.headers[1:]) == ["mean", "searched", "a", "b"]
    assert [cell.text for cell in grid.lines[0].cells] == ["", "-1.500", "", ""]
    assert "searched: the weighted mean of what the sampler saw (gold)" in grid.notes
    assert "mean: weighted by a 1, b 2" in grid.notes


def test_failures_are_told(make_store: Callable[..., Store], lab: SimpleNamespace) -> None:
    store = make_store()
    failed = Outcome(failure=Failure(FailureKind.OUT_OF_MEMORY, "needs 9 GB"))
    lab.record(store, "ties", "search", "baseline", failed)
    assert "ties has no scores: out of memory: needs 9 GB" in layout(leaderboard(store)).notes


def test_the_front_is_named(board: Leaderboard) -> None:
    rows = tuple(replace(row, front=row.name == "trial 2") for row in board.rows)
    assert "Pareto front: trial 2" in layout(replace(board, rows=rows)).notes


def test_constraints_and_costs_are_shown(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    store = make_store(
        keep=[{"task": "zoo_tools", "at_least": 0.98}],
        costs=[{"cost": "parameters", "weight": 0.1}, {"cost": "generated_tokens"}],
    )
    lab.fill(store)
    grid = layout(leaderboard(store), "select")
    assert list(grid.headers[1:]) == [
        "mean",
        "net",
        "extraction",
        "tools",
        "facts",
        "parameters",
        "generated tokens",
    ]
    lines = {line.name: line for line in grid.lines}
    assert {"trial 1 (winner)", "trial 2 †", "ties †", "extraction"} <= set(lines)
    mean, net, *_, parameters, tokens = (cell.text for cell in lines["base"].cells)
    assert (parameters, tokens) == ("1.000", "1.000")
    assert float(net) == pytest.approx(float(mean) - 0.2, abs=1e-3)
    notes = " ".join(grid.notes)
    assert "† misses a constraint on the select items" in notes
    assert "net: the mean less 0.1 × parameters, 0.1 × generated tokens" in notes
    assert "keep zoo_tools: at least 0.98 of best expert (select 0." in notes
    assert "no finalist meets every constraint" not in notes


def test_shares_have_a_mean_even_of_one_task(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    objective = {"task": "zoo_tools", "metric": "exact_match"}
    store = make_store(objectives=[objective], normalize="best_expert")
    scores = {"tools": [1.0] * 8 + [0.0] * 2, "trial 0": [1.0] * 4 + [0.0] * 6}
    for name, kind in (("tools", "expert"), ("trial 0", "finalist")):
        found = Outcome({"zoo_tools": lab.task_scores(scores[name])})
        lab.record(store, name, "select", kind, found)
    grid = layout(leaderboard(store))
    assert list(grid.headers[1:]) == ["mean", "zoo_tools"]
    assert [line.cells[0].text for line in grid.lines] == ["1.000", "0.500"]
    assert [line.cells[1].text for line in grid.lines] == ["0.800", "0.400"]
    assert any("share of the best expert's" in note for note in grid.notes)


def test_estimates_are_marked(make_store: Callable[..., Store], lab: SimpleNamespace) -> None:
    store = make_store()
    part = Outcome({task: lab.task_scores([1.0]) for task in lab.tasks})
    lab.tell(store, 0, part, estimates=[0.3])
    lab.tell(store, 1, lab.outcome("trial 0", "search", (0.1,) * 3))
    grid = layout(leaderboard(store))
    assert [line.name for line in grid.lines] == ["trial 1", "trial 0 (estimate)"]
    assert [cell.text for cell in grid.lines[1].cells] == ["0.300", "", "", ""]
    assert "2 of 4 trials done, 1 of them pruned; no winner chosen yet" in grid.notes
    assert "estimate: the trial was pruned before its last item" in grid.notes


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["zoo_facts", "zoo_tools"], ["facts", "tools"]),
        (["mmlu_law", "mmlu_law_hard"], ["law", "law_hard"]),
        (["gsm8k", "arc_easy"], ["gsm8k", "arc_easy"]),
        (["arc_easy"], ["arc_easy"]),
        (["zoo", "zoo"], ["zoo", "zoo"]),
    ],
)
def test_common_words_of_task_names_are_dropped(names: list[str], short: list[str]) -> None:
    assert short_names(names) == short


def test_numbers() -> None:
    assert [number(x) for x in (0.75, -9.2004, 1234.5)] == ["0.750", "-9.200", "1234"]
    assert [difference(x) for x in (0.5, -0.25)] == ["+0.500", "-0.250"]
    test = PairedTest(0.25, -0.5, 1.0, 0.5, 12, "exact McNemar")
    shown = "+0.250 (-0.500 to +1.000), p = 0.012 (exact McNemar, 12 items, Holm-corrected)"
    assert with_p(test, 0.0123) == shown
    assert "p < 0.0001" in with_p(test, 1e-5)


def test_what_models_take_is_shown_where_it_tells_them_apart(
    make_store: Callable[..., Store], lab: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = Size((30, 30), 40)
    store = make_store(facts={"size": size.to_json(), "prompts": {}})
    lab.fill(store)
    alike = leaderboard(store)
    assert "parameters" not in layout(alike, "select").headers
    base, *_, winner = alike.to_json()["rows"]
    assert base["serving"] == winner["serving"]
    assert base["serving"] == {
        "parameters": 100,
        "active_parameters": 100,
        "bytes": 200,
        "relative_parameters": 1.0,
        "relative_active": 1.0,
        "milliseconds": None,
        "tokens_per_second": None,
        "relative_time": None,
        "time_spread": None,
    }
    monkeypatch.setattr(Merge, "size", lambda self, base: 3.0 if self == lab.recipe() else 1.0)
    monkeypatch.setattr(Merge, "active", lambda self, base: 1.0)
    first, *rows = leaderboard(store).rows
    grown = replace(alike, rows=(replace(first, serving=alike.rows[0].serving), *rows))
    grid = layout(grown, "select")
    assert grid.headers[-1] == "parameters"
    assert "active parameters" not in grid.headers
    texts = {line.cells[-1].text for line in grid.lines}
    assert texts == {"1.000", "3.000"}
    assert any(note.startswith("relative to the base's: parameters") for note in grid.notes)


def test_a_constraint_on_a_cost_is_said(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    store = make_store(keep=[{"cost": "generated_tokens", "at_most": 1.5}])
    lab.fill(store)
    board = leaderboard(store)
    grid = layout(board, "select")
    assert grid.headers[-1] == "generated tokens"
    assert any(
        note.startswith(
            "keep generated tokens: at most 1.5 times the base's (select 1.500, trial 1 has"
        )
        for note in grid.notes
    )
    (constraint,) = board.to_json()["constraints"]
    assert constraint["cost"] == "generated_tokens"
    assert "task" not in constraint
