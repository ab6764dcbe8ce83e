"""What `against_fine_tuning` found, as Markdown: scores, and paired tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np

from evomerge.report.statistics import Stratum, holm, paired_test

Record = dict[str, Any]
"""A row with some items and a seed: `row`, `items`, `seed`; `holdout`, job → exact match; `drawn`, a digest
of the held-out items; `right`, job → a digit for each of them; `seconds`, where it learns."""


def table_of_scores(records: Sequence[Record], rows: Sequence[str]) -> str:
    """Return Markdown: a line a row, a column a number of items, mean and spread over seeds."""
    counts = sorted({record["items"] for record in records})
    names = [name for name in rows if any(record["row"] == name for record in records)]
    heads = [f"{count} items" for count in counts]
    lines = [
        f"| | {' | '.join(heads)} | seconds |",
        "| --- |" + " --- |" * (len(counts) + 1),
    ]
    for name in names:
        cells, seconds = [], []
        for count in counts:
            found = [one for one in records if (one["row"], one["items"]) == (name, count)]
            cells.append(_spread([fmean(one["holdout"].values()) for one in found]))
            times = [one["seconds"] for one in found if "seconds" in one]
            seconds.append(f"{fmean(times):.0f}" if times else "–")
        lines.append(f"| {name} | {' | '.join(cells)} | {' / '.join(seconds)} |")
    return "\n".join(lines) + "\n"


def table_of_tests(records: Sequence[Record], row: str, others: Sequence[str]) -> str:
    """Return Markdown: the paired test of one row against others, for each number of items.

    Of seeds with the same held-out items, an item's difference is its mean over them; other draws are
    taken as further items.
    """
    counts = sorted({record["items"] for record in records})
    lines = [
        f"| items | {row} against | difference | 95 % | p, Holm | held-out items |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for count in counts:
        rows = {
            name: {(one["drawn"], one["seed"]): one["right"] for one in records
                   if (one["row"], one["items"]) == (name, count)}
            for name in (row, *others)
        }  # fmt: skip
        found = {name: _differences(rows[row], rows[name]) for name in others}
        tests = {name: paired_test(each) for name, each in found.items() if each}
        tested = {name: test for name, test in tests.items() if test is not None}
        for (name, one), p in zip(
            tested.items(), holm([one.p for one in tested.values()]), strict=True
        ):
            ends = f"{one.low:+.3f} to {one.high:+.3f}"
            lines.append(
                f"| {count} | {name} | {one.difference:+.3f} | {ends} | {p:.2g} | {one.n} |"
            )
    return "\n".join(lines) + "\n"


Right = Mapping[tuple[str, int], Mapping[str, str]]
"""(Digest of the held-out items, seed) → job → a digit for each item."""


def _differences(ours: Right, theirs: Right) -> list[Stratum]:
    """Return a stratum for each draw of held-out items and job, of the seeds that both rows have."""
    found: dict[tuple[str, str], list[np.ndarray[Any, Any]]] = {}
    for drawn, seed in sorted(ours.keys() & theirs.keys()):
        for job, right in ours[drawn, seed].items():
            pair = np.stack([_digits(right), _digits(theirs[drawn, seed][job])])
            found.setdefault((drawn, job), []).append(pair)
    means = [np.mean(each, axis=0) for each in found.values()]
    return [Stratum(mine, minus=other) for mine, other in means]


def _digits(right: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array(list(right), dtype=np.float64)


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    return f"{fmean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")
