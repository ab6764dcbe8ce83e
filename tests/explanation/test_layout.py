"""Tables and words of an explanation whose numbers are made up."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest

from evomerge.explanation.explanation import Contribution, Explanation
from evomerge.explanation.layout import text
from evomerge.explanation.summary import summary
from tests.explanation.made_up import TASKS, contribution, made_up


@pytest.fixture
def found() -> Explanation:
    return made_up()


def test_the_summary_says_who_gave_what(found: Explanation) -> None:
    said = found.summary
    assert said.startswith(
        "The winner is trial 3 (ties), with a mean of 0.750 on the select items. "
    )
    assert "sums owes most to the expert sums (+0.500 [+0.400, +0.600]); " in said
    assert (
        "poems owes most to the expert poems (+0.100 [+0.000, +0.200], which may be chance)."
        in said
    )
    assert "But poems costs sums -0.300 [-0.400, -0.200]." in said
    assert "most in layers 2-4, rest (+0.250" in said
    assert "Against the best expert (poems) it gains 9 and loses 1 of 50 holdout items." in said
    assert "sums and poems conflict most: behind layer 0 " in said
    assert "0.60 of their length apart" in said
    assert said.endswith("random task vectors of the same norms the same numbers score 0.010.")


def test_parts_without_effect_and_models_that_fail_are_said(found: Explanation) -> None:
    idle = contribution("sums", 0.0, 0.0, unchanged=True)
    lost = Contribution(
        "poems", "all", "all", None, dict.fromkeys(TASKS), failure="collapsed: a a a"
    )
    said = summary(replace(found, experts=(idle, lost)))
    assert "It is the same model without sums." in said
    assert "sums owes nothing to any single one" in said
    assert "no scores at all without poems (collapsed: a a a)." in said
    shown = text(replace(found, experts=(idle, lost)), width=100)
    assert "Without poems: collapsed: a a a" in shown


def test_tables_hold_what_was_found(found: Explanation) -> None:
    shown = text(found, width=120)
    assert " ".join(shown.split()).startswith(found.summary[:60])
    assert "layers 0-2, mlp" in shown
    rows = [line.split() for line in shown.splitlines() if line.startswith(("sums ", "poems "))]
    assert ["sums", "-0.300", "+0.240*", "±.100"] in rows, "the prediction for 0.1 more"
    assert ["poems", "+0.075", "-0.100*", "±.100"] in rows
    assert "gained and lost: sums +9 -1 of 50" in shown
    (pair,) = [line.split() for line in shown.splitlines() if line.startswith("sums, poems")]
    assert pair[2:] == ["0.250", "-0.100", "0.500", "0.600", "0.600"]
    assert "random task vectors" in shown


def test_texts_from_outside_are_escaped(found: Explanation) -> None:
    assert "&lt;b>3&lt;/b>" in text(found, "markdown")
    assert "<b>3</b>" not in text(found, "html")
    assert "…" in text(found, "markdown")
    data = json.loads(text(found, "json"))
    assert data["changes"][0]["examples_gained"][0]["prompt"].startswith("x" * 90)


def test_records_are_one_for_each_part_and_task(found: Explanation) -> None:
    rows = list(csv.DictReader(io.StringIO(text(found, "csv"))))
    assert len(rows) == 4 * 3
    assert {row["task"] for row in rows} == {"mean", *TASKS}
    assert rows[1]["expert"] == "sums"
    assert float(rows[1]["difference"]) == 0.5
    assert (rows[6]["kind"], rows[6]["layers"], rows[6]["tensors"]) == ("group", "0-2", "mlp")


def test_what_does_not_apply_is_left_out_and_said(found: Explanation) -> None:
    bare = Explanation("c", "trial 0", "stack of 8", TASKS, None, {}, notes=("No gradient here.",))
    shown = text(replace(bare, summary=summary(bare)), width=100)
    assert shown.startswith("The winner is trial 0 (stack of 8).")
    assert "No gradient here." in shown
    assert "What each expert adds" not in shown
