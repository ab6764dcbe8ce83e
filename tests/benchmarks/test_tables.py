import pytest
from scipy.stats import binomtest

from benchmarks.search._tables import table_of_scores, table_of_tests


def record(row: str, right: str, *, seed: int = 0, drawn: str = "one", items: int = 8) -> dict:
    share = right.count("1") / len(right)
    of = {"row": row, "items": items, "seed": seed, "drawn": drawn}
    return {**of, "right": {"sums": right}, "holdout": {"sums": share}, "seconds": 3.0}


def cells(table: str, row: int) -> list[str]:
    return [cell.strip() for cell in table.splitlines()[2 + row].strip("|").split("|")]


def test_scores_stand_by_row_and_number_of_items_with_their_spread_over_seeds():
    records = [
        record("ours", "1100", seed=0),
        record("ours", "1111", seed=1),
        record("theirs", "1000", items=4),
    ]
    table = table_of_scores(records, ["theirs", "ours", "never run"])
    assert cells(table, 0) == ["theirs", "0.250", "–", "3 / –"]
    assert cells(table, 1) == ["ours", "–", "0.750 ± 0.354", "– / 3"]
    assert len(table.splitlines()) == 4


def test_one_draw_of_one_job_is_tested_as_mcnemar_does():
    records = [record("ours", "1" * 12 + "0" * 8), record("theirs", "1" * 2 + "0" * 18)]
    found = cells(table_of_tests(records, "ours", ["theirs", "never run"]), 0)
    assert found[:3] == ["8", "theirs", "+0.500"]
    assert float(found[4]) == pytest.approx(binomtest(10, 10).pvalue, rel=0.05)
    assert found[5] == "20"


def test_seeds_on_the_same_items_are_no_further_items_but_other_draws_are():
    ours, theirs = "1" * 10 + "0" * 10, "0" * 20
    same = [record(row, right, seed=seed) for seed in (0, 1) for row, right in
            (("ours", ours), ("theirs", theirs))]  # fmt: skip
    assert cells(table_of_tests(same, "ours", ["theirs"]), 0)[5] == "20"
    other = [{**one, "drawn": str(one["seed"])} for one in same]
    found = [cells(table_of_tests(each, "ours", ["theirs"]), 0) for each in (same, other)]
    assert found[1][5] == "40"
    assert float(found[1][4]) < float(found[0][4])


def test_p_values_are_corrected_for_their_number():
    records = [record(row, right) for row, right in (
        ("ours", "1" * 12 + "0" * 8), ("first", "0" * 20), ("second", "1" * 4 + "0" * 16),
    )]  # fmt: skip
    table = table_of_tests(records, "ours", ["first", "second"])
    alone = [table_of_tests(records, "ours", [name]) for name in ("first", "second")]
    assert float(cells(table, 0)[4]) == pytest.approx(2 * float(cells(alone[0], 0)[4]), rel=0.05)
    assert cells(table, 1)[4] == cells(alone[1], 0)[4]
