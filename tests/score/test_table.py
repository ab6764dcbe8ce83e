import json

import pytest

from evomerge.score import lm_eval_results, lm_eval_table


@pytest.fixture
def both(llama):
    items = llama.items("both", "written", search=9)
    metrics = {
        "both": ("acc", "acc_norm"),
        "written": ("exact_match,whole", "exact_match,first", "gold_loglikelihood"),
    }
    scored = llama.scorer(items).score("search", metrics)
    return lm_eval_results(items, scored, "search"), llama.oracle(items, "both", "written")


def test_results_are_named_and_nested_as_lm_evals(both):
    ours, stock = both
    for name in ("both", "choice", "choice_shots", "written"):
        for key, value in ours["results"][name].items():
            if "gold" not in key:
                assert value == pytest.approx(stock["results"][name][key], abs=1e-9), key
    for key in ("group_subtasks", "versions", "n-samples"):
        assert ours[key] == stock[key]
    assert ours["n-shot"] == {"choice": 0, "choice_shots": 3, "written": 0}
    assert set(ours["groups"]) == {"both"}
    json.dumps(ours)


def test_table_is_lm_evals(both):
    lines = lm_eval_table(both[0]).splitlines()
    assert lines[0].startswith("|")
    assert "Metric" in lines[0]
    assert any(line.startswith("| - choice_shots") for line in lines)
    assert sum("both" in line for line in lines) == 2  # among all, and among the groups
