from evomerge.errors import CampaignError, UserError, nearest


def test_message_names_file_line_and_field_on_one_line():
    error = CampaignError("found x,\n expected y", file="a.yaml", line=3, field="space.method")
    assert str(error) == "a.yaml:3: space.method: found x, expected y"


def test_message_leaves_out_what_is_unknown():
    assert str(UserError("no")) == "no"
    assert str(UserError("no", file="a.yaml")) == "a.yaml: no"
    assert str(UserError("no", line=3, field="x")) == "x: no"


def test_nearest_suggests_a_close_name_and_lists_the_others():
    assert nearest("tise", ["ties", "linear"]) == 'did you mean "ties"?'
    assert nearest("CMA-ES", ["auto", "cmaes"]) == 'did you mean "cmaes"?'
    assert nearest("zzz", ["ties", "linear"]) == "known: linear, ties"
