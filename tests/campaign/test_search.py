import pytest


def test_a_search_has_a_budget_a_seed_and_a_beginning(read):
    search = read(new="search: {trials: 9, seed: 4, warm_start: ../old}\n").search
    assert (search.trials, search.seed, search.pruner) == (9, 4, "none")
    assert search.warm_start == "/old"  # from the file's folder
    assert read().search.warm_start is None


def test_every_sampler_is_known_by_name(read):
    for name in ("slope", "cmaes", "tpe", "nsga2", "gp", "random", "qmc"):
        assert read(new=f"search: {{sampler: {name}}}\n").search.sampler == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{sampler: slopes}", "c.yaml:11: search.sampler: found 'slopes', expected"),
        ("{trials: 0}", "c.yaml:11: search.trials: found 0, expected: greater than or equal to 1"),
        ("{hours: 0}", "c.yaml:11: search.hours: found 0, expected: greater than 0"),
        ("{item_evaluations: 0}", "c.yaml:11: search.item_evaluations: found 0"),
        ("{seed: -1}", "c.yaml:11: search.seed: found -1"),
        ("{finalists: 0}", "c.yaml:11: search.finalists: found 0"),
        ("{pruner: median}", "c.yaml:11: search.pruner: found 'median', expected"),
        ("{target: .nan}", "c.yaml:11: search.target: found nan"),
        ("{warm_start: ''}", "c.yaml:11: search.warm_start: found ''"),
        ("{trails: 5}", 'c.yaml:11: search.trails: unknown key "trails"; did you mean "trials"?'),
    ],
)
def test_a_wrong_search_is_refused(refusal, text, message):
    assert message in refusal(new=f"search: {text}\n")
