import json
from dataclasses import replace

import pytest

from evomerge.scoring import lm_eval_results, lm_eval_table


def near(value):
    return pytest.approx(value, rel=1e-5, abs=1e-7)


@pytest.fixture
def both(llama):
    items = llama.items("both", "written", search=9)
    metrics = {
        "both": ("acc", "acc_norm"),
        "written": ("exact_match,whole", "exact_match,first", "gold_loglikelihood"),
    }
    scored = llama.scorer(items).score(llama.module, "search", metrics)
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


@pytest.mark.parametrize("names", [("nested",), ("judged", "rolling", "loose")])
def test_everything_is_there_that_lm_eval_gives(llama, names):
    items = llama.items(*names)
    scored = llama.scorer(items).score(
        llama.module, "search", dict.fromkeys(names), bootstrap_iterations=2
    )
    ours, stock = lm_eval_results(items, scored, "search"), llama.oracle(items, *names)
    for key in ("group_subtasks", "versions", "n-shot", "n-samples"):
        assert ours[key] == stock[key]
    for table in ("results", "groups") if "groups" in stock else ("results",):
        assert list(ours[table]) == list(stock[table])
        for name, row in stock[table].items():
            own = {key: value for key, value in ours[table][name].items() if "gold" not in key}
            assert own.keys() == row.keys()
            for key, value in row.items():
                expected = value if isinstance(value, str | dict) else near(value)
                assert own[key] == expected, (name, key)
    for name, higher in stock["higher_is_better"].items():
        own = ours["higher_is_better"][name]
        assert {key: value for key, value in own.items() if "gold" not in key} == higher
    if "nested" in names:
        assert "acc_norm,none" in ours["results"]["choice"]  # the group aggregates acc only
        assert "odd,none" in ours["results"]["judged"]  # nobody's metric_list has it


def test_golds_of_a_group_are_means_over_all_items_that_have_one(llama):
    items = llama.items("mixed")
    leaves = items.leaves("mixed", "search")
    docs = [{**doc, "label": -1} if n else doc for n, doc in enumerate(leaves[1].docs)]
    changed = replace(leaves[1], docs=tuple(docs))
    items._chosen["mixed", "search"] = (leaves[0], changed, leaves[2])
    scored = llama.scorer(items).score(llama.module, "search", {"mixed": None})
    values = scored.tasks["mixed"].metrics["gold_loglikelihood"]
    own = scored.subtasks["acc_only"].metrics["gold_loglikelihood"]
    assert own[1:] == (None,) * (len(docs) - 1)
    assert values.count(None) == len(docs) - 1
    there = [value for value in values if value is not None]
    row = lm_eval_results(items, scored, "search")["groups"]["mixed"]
    assert row["gold_loglikelihood,none"] == pytest.approx(sum(there) / len(there))
    assert "gold_probability,none" not in row  # `written` has none
    assert scored.subtasks["acc_only"].values["gold_loglikelihood"].value == own[0]


def test_table_is_lm_evals(both):
    lines = lm_eval_table(both[0]).splitlines()
    assert lines[0].startswith("|")
    assert "Metric" in lines[0]
    assert any(line.startswith("| - choice_shots") for line in lines)
    assert sum("both" in line for line in lines) == 2  # among all, and among the groups
