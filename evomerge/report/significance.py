"""Is the winner better, and by how much: paired tests on the same items, and generalisation gap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evomerge.candidate.trial import SPLITS, Outcome, Split
from evomerge.report.rows import Goal, Row, divisor, factor, higher_is_better, item_scores
from evomerge.report.statistics import PairedTest, Stratum, holm, is_binary, paired_test

FINAL: Split = "holdout"


@dataclass(frozen=True)
class Contrast:
    """One row against another on the same items.

    Attributes:
        row: Name of the first.
        against: Name of the second.
        part: What the second is: `best expert` or `best baseline`.
        test: First minus second, on the reported objective.
        p_corrected: Its p after Holm's correction over all contrasts of the leaderboard.
        row_key: Key of the first.
        against_key: Key of the second.
    """

    row: str
    against: str
    part: str
    test: PairedTest
    p_corrected: float
    row_key: str = ""
    against_key: str = ""


@dataclass(frozen=True)
class GeneralisationGap:
    """How much of a winner's score on the items it was searched on is left on fresh ones.

    Attributes:
        row: The winner.
        metric: `reported` or, where the search did not compute that, `searched`.
        search: Weighted mean on the search items.
        holdout: The same on the holdout items.
        select: The same on the select items, which picked it; None where they lack it.
        row_key: Key of the winner.
    """

    row: str
    metric: str
    search: float
    holdout: float
    select: float | None = None
    row_key: str = ""

    @property
    def difference(self) -> float:
        """Search minus holdout."""
        return self.search - self.holdout


@dataclass(frozen=True)
class Evidence:
    """All that is said of the winners.

    Attributes:
        contrasts: Paired tests on the holdout items.
        generalisation_gap: One a winner.
    """

    contrasts: tuple[Contrast, ...] = ()
    generalisation_gap: tuple[GeneralisationGap, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts and lists."""
        return {
            "split": FINAL,
            "paired": [_flat(contrast) for contrast in self.contrasts],
            "generalisation_gap": [
                {**asdict(one), "generalisation_gap": one.difference}
                for one in self.generalisation_gap
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Evidence:
        """Read back what `to_json` wrote."""
        fields = ("difference", "low", "high", "p", "n", "method")
        contrasts = tuple(
            Contrast(
                row=one["row"],
                against=one["against"],
                part=one["part"],
                test=PairedTest(**{key: one[key] for key in fields}),
                p_corrected=one["p_corrected"],
                row_key=one["row_key"],
                against_key=one["against_key"],
            )
            for one in data["paired"]
        )
        generalisation_gap = tuple(
            GeneralisationGap(
                **{key: value for key, value in one.items() if key != "generalisation_gap"}
            )
            for one in data["generalisation_gap"]
        )
        return cls(contrasts, generalisation_gap)


def weigh(rows: Sequence[Row], goals: Sequence[Goal]) -> Evidence:
    """Test every winner against the best expert and the best naive baseline on holdout.

    "Best" is best on these very holdout items: the hardest opponent, and no choice that the winner gains
    from. A pair whose items differ, or whose metrics do not average over items, is left out.
    """
    winners = [row for row in rows if row.kind == "winner"]
    found: list[tuple[Row, Row, str, PairedTest]] = []
    for winner in winners:
        for kind, part in (("expert", "best expert"), ("baseline", "best baseline")):
            opponent = best([row for row in rows if row.kind == kind], goals, FINAL)
            test = None if opponent is None else _row_test(winner, opponent, goals)
            if opponent is not None and test is not None:
                found.append((winner, opponent, part, test))
    corrected = holm([test.p for *_, test in found])
    contrasts = tuple(
        Contrast(row.name, other.name, part, test, p, row.key, other.key)
        for (row, other, part, test), p in zip(found, corrected, strict=True)
    )
    generalisation_gap = [
        one for winner in winners if (one := _generalisation_gap(winner)) is not None
    ]
    return Evidence(contrasts, tuple(generalisation_gap))


def best(rows: Sequence[Row], goals: Sequence[Goal], split: Split) -> Row | None:
    """Return the row with the best reported objective on `split`, None where no row has one."""
    sign = 1.0 if higher_is_better(goals) else -1.0
    scored = [(sign * value, row) for row in rows if (value := row.objective(split)) is not None]
    return max(scored, key=lambda pair: pair[0])[1] if scored else None


def paired(first: Outcome, second: Outcome, goals: Sequence[Goal]) -> PairedTest | None:
    """Test the weighted mean of the reported metrics, first minus second, item by item.

    Of shares of the best expert's values the interval counts that these were measured on the same items; p
    takes them as the weights of the tasks.

    Returns:
        None where a task is missing, the items differ, or a task's part does not average per-item
        scores.
    """
    strata: list[Stratum] = []
    binary = True
    for goal in goals:
        mine, theirs = first.scores.get(goal.task), second.scores.get(goal.task)
        if mine is None or theirs is None or set(mine.items) != set(theirs.items):
            return None
        left, right = item_scores(mine, goal.report), item_scores(theirs, goal.report)
        scale = factor(goal, goals)
        if left is None or right is None or scale is None:
            return None
        place = {item: index for index, item in enumerate(theirs.items)}
        aligned = right[[place[item] for item in mine.items]]
        binary = binary and is_binary(left) and is_binary(right)
        shared, known = divisor(goal, mine.items, scale)
        if not known:
            return None
        strata.append(Stratum((left - aligned) * scale, goal.weight, shared))
    return paired_test(strata, binary=binary)


def _row_test(winner: Row, opponent: Row, goals: Sequence[Goal]) -> PairedTest | None:
    mine, theirs = winner.splits.get(FINAL), opponent.splits.get(FINAL)
    if mine is None or theirs is None or mine.outcome is None or theirs.outcome is None:
        return None
    return paired(mine.outcome, theirs.outcome, goals)


def _generalisation_gap(winner: Row) -> GeneralisationGap | None:
    reported = {split: scores.objective for split, scores in winner.splits.items()}
    searched = {split: scores.searched for split, scores in winner.splits.items()}
    for metric, values in (("reported", reported), ("searched", searched)):
        first, middle, last = (values.get(split) for split in SPLITS)
        if first is not None and last is not None:
            select = None if middle is None else middle.value
            return GeneralisationGap(
                winner.name, metric, first.value, last.value, select, winner.key
            )
    return None


def _flat(contrast: Contrast) -> dict[str, Any]:
    flat = asdict(contrast)
    flat.update(flat.pop("test"))
    return flat
