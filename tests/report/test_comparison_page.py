"""The page of a comparison: its numbers, and names from outside in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

from evomerge.report.comparison import comparison, comparison_page
from evomerge.report.comparison.page import sections
from evomerge.report.material import Material
from evomerge.report.page import Callout, Plot
from evomerge.store import Store

HOSTILE = '<script>alert("a")</script></style><img src=x onerror=alert(1)>'


def searched(make_store: Callable[..., Store], lab: SimpleNamespace, seconds: float) -> Store:
    """Four trials, one after the other, each as long."""
    store = make_store(
        {**lab.facts, "versions": {"lm_eval": "0.4.13", "torch": f"<b>{seconds}</b>"}}
    )
    for number, rate in enumerate((0.3, 0.6, 0.5, 0.9)):
        found = lab.outcome(f"{seconds} {number}", "search", [rate] * 3)
        cost = replace(
            found.cost, began=1e9 + number * seconds, merge_seconds=0.0, score_seconds=seconds
        )
        lab.tell(store, number, replace(found, cost=cost))
    lab.record(store, "trial 3", "holdout", "winner", lab.outcome("trial 1", "holdout"))
    return store


def test_the_figures_show_the_best_so_far(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    stores = {"quick": searched(make_store, lab, 1.0), "slow": searched(make_store, lab, 3.0)}
    sides = {label: Material.of(store) for label, store in stores.items()}
    found = sections(comparison(sides), sides)
    assert [one.key for one in found] == ["verdict", "winners", "effort", "settings"]
    (callout,) = found[0].parts
    assert isinstance(callout, Callout)
    assert callout.text.startswith("no difference between slow and quick that these items show")
    plots = [part for part in found[2].parts if isinstance(part, Plot)]
    assert [plot.name for plot in plots] == ["best-by-item-evaluations", "best-by-seconds"]
    for label, seconds, trace in zip(sides, (1, 3), plots[1].figure["data"], strict=True):
        values = [round(one.values[0], 4) for one in stores[label].trials() if one.values]
        assert trace["name"] == label
        assert trace["x"] == [seconds, 2 * seconds, 4 * seconds, 4 * seconds]
        assert trace["y"] == [values[0], values[1], values[3], values[3]]
    items = plots[0].figure["data"][1]["x"]
    assert items == [3 * lab.items["search"] * number for number in (1, 2, 4, 4)]


def test_names_from_outside_are_shown_not_run(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    stores = {HOSTILE: searched(make_store, lab, 1.0), "b": searched(make_store, lab, 2.0)}
    sides = {label: Material.of(store) for label, store in stores.items()}
    page = comparison_page(comparison(sides), sides)
    assert "alert(" in page
    for bad in ("<script>alert", "</style><img", "<img src=x", "<b>1.0"):
        assert bad not in page
    assert page.lower().count("</style>") == 1
    assert len(page) < 2_000_000


def test_searches_that_cannot_be_compared_have_no_figures(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    one = searched(make_store, lab, 1.0)
    other = make_store(normalize="best_expert")
    lab.fill(other)
    sides = {"a": Material.of(one), "b": Material.of(other)}
    effort = sections(comparison(sides), sides)[2]
    assert not any(isinstance(part, Plot) for part in effort.parts)
