"""An explanation whose numbers are made up."""

from __future__ import annotations

from dataclasses import replace

from evomerge.explanation.explanation import (
    Conflict,
    Contribution,
    Explanation,
    ItemChanges,
    ItemExample,
    RandomControl,
    Sensitivity,
    TestedGain,
)
from evomerge.explanation.summary import summary
from evomerge.merge.task_vectors import TaskVectorConflicts
from evomerge.report.scores import Value
from evomerge.report.statistics import PairedTest

TASKS = ("my_sums", "my_poems")


def gain(difference: float, p: float = 0.001) -> TestedGain:
    return TestedGain(
        PairedTest(difference, difference - 0.1, difference + 0.1, p, 50, "exact McNemar"), p
    )


def contribution(expert: str, first: float, second: float, **more: object) -> Contribution:
    tasks = {TASKS[0]: gain(first), TASKS[1]: gain(second, 0.4)}
    fields = {"layers": "all", "tensors": "all", **more}
    return Contribution(expert, mean=gain((first + second) / 2), tasks=tasks, **fields)  # type: ignore[arg-type]


def made_up() -> Explanation:
    """One with everything in it."""
    vectors = TaskVectorConflicts(
        "all", (1.0, 2.0), ((1.0, 0.25), (0.25, 1.0)), ((0.0, 0.5), (0.5, 0.0))
    )
    example = ItemExample("my_sums", "7", "x" * 90 + "\n1 + 1 =", "2", "2", "<b>3</b>", 1, 0, 0.25)
    whole = Explanation(
        campaign="made up",
        winner="trial 3",
        label="ties",
        tasks=TASKS,
        mean=Value(0.75, 0.7, 0.8),
        values={"my_sums": Value(0.8), "my_poems": Value(0.7)},
        how="It is left out.",
        experts=(contribution("sums", 0.5, -0.02), contribution("poems", -0.3, 0.1)),
        groups=(
            contribution("", 0.2, 0.1, layers="0-2", tensors="mlp"),
            contribution("", 0.3, 0.2, layers="2-4", tensors="rest"),
        ),
        sensitivity=Sensitivity(
            ("sums", "poems"), ("0-2", "2-4"), ("all",), {"my_sums": 0.4},
            {"my_sums": (((-1.0, 0.5),), ((-2.0, 0.25),))},
        ),
        changes=(
            ItemChanges(
                "poems", "best expert", "holdout", {"my_sums": 9}, {"my_sums": 1}, {"my_sums": 50},
                (example,), (),
            ),
        ),
        conflict=Conflict(
            ("sums", "poems"),
            (replace(vectors, part="layer 0", cosines=((1.0, -0.1), (-0.1, 1.0))), vectors),
            (((0.0, 0.1), (0.1, 0.0)), ((0.0, 0.6), (0.6, 0.0))),
            40,
        ),
        random=RandomControl(0, Value(0.01), {"my_sums": Value(0.02), "my_poems": Value(0.0)}),
    )  # fmt: skip
    return replace(whole, summary=summary(whole))
