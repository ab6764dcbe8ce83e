"""What a study found, in one sentence: the winner, and whether it beats the best expert and naive merge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from evomerge.candidate.trial import Split
from evomerge.report.evidence import FINAL, Contrast, best
from evomerge.report.grid import number, p_value, with_ends
from evomerge.report.leaderboard import Leaderboard
from evomerge.report.rows import Row
from evomerge.report.scores import Value, mean_sign, reported

SIGNIFICANT = 0.05
"""A corrected p below this counts as a difference."""
_CALLED = {"best expert": "the best expert", "best baseline": "the best naive merge"}

Finding = Literal["gain", "no gain", "loss", "not tested", "no winner"]


@dataclass(frozen=True)
class Verdict:
    """What a study found.

    Attributes:
        finding: `gain`: significantly better than the best expert and the best naive merge, as far as there
            are any; `loss`: significantly worse than one of them; `no gain`: neither; `not tested`: there is
            a winner but no paired test of it; `no winner`: none was chosen yet.
        sentence: The same with names and numbers.
    """

    finding: Finding
    sentence: str


def verdict(board: Leaderboard) -> Verdict:
    """Say what a finished or running study found."""
    if not board.winners:
        return Verdict("no winner", _so_far(board))
    winner = board.winners[0]
    contrasts = [one for one in board.tests.contrasts if one.row_key == winner.key]
    missed = ", and it misses a constraint" if winner.misses(FINAL) else ""
    if not contrasts:
        return Verdict("not tested", _untested(board, winner) + missed)
    sign = mean_sign(reported(board.aims[FINAL]))
    found = [_standing(one, sign) for one in contrasts]
    finding: Finding = "loss" if -1 in found else "no gain" if 0 in found else "gain"
    numbers = "; ".join(
        f"against {_CALLED[one.part]}, {one.against}: {with_ends(one.test)}, {p_value(one.p_corrected)}"
        for one in contrasts
    )
    tests = " and ".join(dict.fromkeys(one.test.method for one in contrasts))
    less = ", less is better" if sign < 0 else ""
    how = f"{contrasts[0].test.n} {FINAL} items, {tests}, Holm-corrected{less}"
    headline = _headline(contrasts, found)
    return Verdict(finding, f"{headline}: {winner.name} {numbers} ({how}){missed}")


def _standing(one: Contrast, sign: float) -> int:
    """Return 1 where the winner is significantly better, -1 where worse, else 0."""
    if one.p_corrected >= SIGNIFICANT or one.test.difference == 0:
        return 0
    return 1 if sign * one.test.difference > 0 else -1


def _headline(contrasts: Sequence[Contrast], found: Sequence[int]) -> str:
    clauses = []
    for wanted, words, joint in (
        (-1, "worse than", "and"),
        (1, "gain over", "and"),
        (0, "no gain over", "or"),
    ):
        pairs = zip(contrasts, found, strict=True)
        against = [_CALLED[one.part] for one, sign in pairs if sign == wanted]
        if against:
            clauses.append(f"{words} {f' {joint} '.join(against)}")
    text = ", ".join(clauses)
    return text[0].upper() + text[1:]


def _untested(board: Leaderboard, winner: Row) -> str:
    split = board.latest_split() if FINAL not in winner.splits else FINAL
    scores = winner.splits.get(split)
    if split != FINAL or scores is None:
        return f"Not tested yet: {winner.name} was chosen, and is not scored on the {FINAL} items"
    if scores.failure is not None:
        return f"Not tested: {winner.name} has no scores on the {FINAL} items: {scores.failure}"
    rivals = [
        f"{_CALLED[part]}, {rival.name}, {_shown(rival, FINAL)}"
        for kind, part in (("expert", "best expert"), ("baseline", "best baseline"))
        if (rival := best([row for row in board.rows if row.kind == kind], FINAL)) is not None
    ]
    against = f"; {'; '.join(rivals)}" if rivals else ""
    return (
        f"Not tested: {winner.name} has {_shown(winner, FINAL)} on the {FINAL} items{against}; "
        "there is no paired test of these scores"
    )


def _so_far(board: Leaderboard) -> str:
    """Say what leads before a winner is chosen."""
    split: Split = "search"
    leading = [row for row in board.rows if row.kind == "finalist" and split in row.splits]
    done = f"{board.campaign.done} trial{'s' if board.campaign.done != 1 else ''} done"
    if not leading:
        return f"No winner yet, {done}: no merge was scored"
    lead = leading[0]
    rival = best([row for row in board.rows if row.kind == "baseline"], split)
    against = (
        "" if rival is None else f" (the best naive merge, {rival.name}: {_shown(rival, split)})"
    )
    return (
        f"No winner yet, {done}: {lead.name} leads with {_shown(lead, split)} on the {split} items"
        f"{against}; the search goes by these, so expect less on fresh ones"
    )


def _shown(row: Row, split: Split) -> str:
    scores = row.splits[split]
    value: Value | None = scores.objective or scores.searched
    return "no value" if value is None else number(value.value)
