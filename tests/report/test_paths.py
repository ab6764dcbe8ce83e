from evomerge.report.paths import portable


def test_a_folder_is_named_as_seen_from_the_results_folder():
    assert portable("/a/results/models/base", "/a/results/one") == "../models/base"
    assert portable("/a/results/one/base", "/a/results/one") == "base"


def test_a_hub_id_and_a_zoo_name_stay_as_they_are():
    assert portable("org/model", "/a") == "org/model"
    assert portable("zoo:base", "/a") == "zoo:base"
