import pytest

from evomerge import yaml_file


def test_a_search_has_a_budget_a_seed_and_a_beginning(read):
    search = read(new="search: {trials: 9, seed: 4, warm_start: ../old}\n").search
    assert (search.trials, search.seed, search.pruner) == (9, 4, "none")
    assert search.warm_start == "/old"  # from the file's folder
    assert read().search.warm_start is None


@pytest.mark.parametrize(
    ("text", "trials", "planned"),
    [
        ("{seed: 1}", 200, 200),
        ("{trials: null}", 200, 200),
        ("{hours: 2}", None, 200),
        ("{target: 0.8}", None, 200),
        ("{item_evaluations: 1000}", None, 15),
        ("{item_evaluations: 1}", None, 1),
        ("{hours: 2, trials: 7}", 7, 7),
    ],
)
def test_trials_have_no_limit_where_another_budget_is_given(read, text, trials, planned):
    campaign = read(new=f"search: {text}\n")
    assert campaign.search.trials == trials
    assert campaign.items_per_trial == 64
    assert campaign.planned_trials == planned
    again = campaign.from_document(yaml_file.parse(campaign.to_yaml()))
    assert again.search == campaign.search


def test_a_descent_learns_at_every_scale_unless_told_which(read):
    assert read().search.scales is None
    assert read(new="search: {scales: [group]}\n").search.scales == ("group",)


def test_earlier_names_are_read_with_a_note(read):
    found = read(new="search: {sampler: slope, slope_items: 4, pruner: wilcoxon}\n")
    search = found.search
    assert (search.sampler, search.gradient_items, search.pruner) == ("gradient", 4, "race")
    assert found.notes == (
        "search.sampler: slope is the earlier name of gradient; write gradient",
        "search.slope_items is the earlier name of search.gradient_items; write gradient_items",
        "search.pruner: wilcoxon is the earlier name of race; write race",
    )
    assert read(new="search: {sampler: gradient, pruner: race}\n").notes == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{sampler: 3}", "c.yaml:11: search.sampler: found 3, expected a text"),
        ("{trials: 0}", "c.yaml:11: search.trials: found 0, expected at least 1"),
        ("{hours: 0}", "c.yaml:11: search.hours: found 0, expected more than 0"),
        ("{item_evaluations: 0}", "c.yaml:11: search.item_evaluations: found 0"),
        ("{seed: -1}", "c.yaml:11: search.seed: found -1"),
        ("{finalists: 0}", "c.yaml:11: search.finalists: found 0"),
        ("{pruner: median}", 'c.yaml:11: search.pruner: found "median", expected'),
        (
            "{scales: 3}",
            "c.yaml:11: search.scales: found 3, expected a list of group, tensor and row",
        ),
        ("{scales: [rwo]}", 'found "rwo", expected one of group, tensor, row; did you mean "row"?'),
        ("{scales: [row]}", "c.yaml:11: search.scales: found [row], expected group among them"),
        ("{scales: []}", "c.yaml:11: search.scales: found [], expected group among them"),
        ("{scales: [group, row, row]}", "found [group, row, row], expected each scale once"),
        ("{target: .nan}", "c.yaml:11: search.target: found NaN"),
        ("{warm_start: ''}", 'c.yaml:11: search.warm_start: found ""'),
        ("{trails: 5}", 'c.yaml:11: search.trails: unknown key "trails"; did you mean "trials"?'),
    ],
)
def test_a_wrong_search_is_refused(refusal, text, message):
    assert message in refusal(new=f"search: {text}\n")
