"""Is the winner better, and by how much: paired tests on the same items, and the generalisation gap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evomerge.candidate.trial import Split
from evomerge.objective import Objectives
from evomerge.report.rows import Kind, Row
from evomerge.report.scores import paired
from evomerge.report.statistics import PairedTest, holm

FINAL: Split = "holdout"
OPPONENTS: tuple[tuple[Kind, str], ...] = (
    ("expert", "best expert"),
    ("baseline", "best baseline"),
)


@dataclass(frozen=True)
class Contrast:
    """One row against another on the same items.

    Attributes:
        row: Name of the first; its key is `row_key`.
        against: Name of the second; its key is `against_key`.
        part: What the second is: `best expert` or `best baseline`.
        test: First minus second, on the reported objective.
        p_corrected: Its p after Holm's correction over all contrasts of the leaderboard.
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

    The weighted mean on each split, of the `reported` metrics or, where the search did not compute those, of
    the `searched` ones.
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
    """All that is said of the winners: paired tests on the holdout items, and generalisation gaps."""

    contrasts: tuple[Contrast, ...] = ()
    generalisation_gap: tuple[GeneralisationGap, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts and lists."""
        paired_tests = []
        for contrast in self.contrasts:
            flat = asdict(contrast)
            flat.update(flat.pop("test"))
            paired_tests.append(flat)
        gaps = [
            {**asdict(one), "generalisation_gap": one.difference} for one in self.generalisation_gap
        ]
        return {"split": FINAL, "paired": paired_tests, "generalisation_gap": gaps}


def weigh(rows: Sequence[Row], aims: Objectives) -> Evidence:
    """Test every winner against the best expert and the best naive baseline on holdout.

    "Best" is best on these very holdout items: the hardest opponent, and no choice that the winner gains
    from. A pair whose items differ, or whose metrics do not average over items, is left out.
    """
    winners = [row for row in rows if row.kind == "winner"]
    found: list[tuple[Row, Row, str, PairedTest]] = []
    for winner in winners:
        for kind, part in OPPONENTS:
            opponent = best([row for row in rows if row.kind == kind], FINAL)
            theirs = None if opponent is None else opponent.outcome(FINAL)
            mine = winner.outcome(FINAL)
            test = paired(aims, mine, theirs) if mine and theirs else None
            if opponent is not None and test is not None:
                found.append((winner, opponent, part, test))
    corrected = holm([test.p for *_, test in found])
    contrasts = tuple(
        Contrast(row.name, other.name, part, test, p, row.key, other.key)
        for (row, other, part, test), p in zip(found, corrected, strict=True)
    )
    gaps = [one for winner in winners if (one := _generalisation_gap(winner)) is not None]
    return Evidence(contrasts, tuple(gaps))


def best(rows: Sequence[Row], split: Split) -> Row | None:
    """Return the row with the best reported mean on `split`, None where no row has one."""
    scored = [
        (quality, row)
        for row in rows
        if split in row.splits and (quality := row.splits[split].quality) is not None
    ]
    return max(scored, key=lambda pair: pair[0])[1] if scored else None


def _generalisation_gap(winner: Row) -> GeneralisationGap | None:
    splits = winner.splits
    for metric, side in (("reported", "objective"), ("searched", "searched")):
        value = {split: getattr(scores, side) for split, scores in splits.items()}
        first, middle, last = (value.get(split) for split in ("search", "select", "holdout"))
        if first is not None and last is not None:
            select = None if middle is None else middle.value
            return GeneralisationGap(
                winner.name, metric, first.value, last.value, select, winner.key
            )
    return None
