import pytest

from evomerge import yaml_file
from evomerge.config import Campaign
from evomerge.config.forms import FORMS
from evomerge.errors import CampaignError

PLAIN = {
    "name": "small",
    "models": {"base": "zoo:base", "experts": ["zoo:facts", "zoo:tools"]},
    "space": {"method": "linear", "parameters": {"weight": {"low": 0.0, "high": 1.0}}},
    "objectives": [{"task": "a", "metric": "acc"}],
    "keep": [{"task": "a", "at_least": 0.9}],
    "costs": [{"cost": "parameters"}],
}


def refusal(field, value):
    """What is said of the plain campaign with another value in one field."""
    data = yaml_file.parse(yaml_file.dump(PLAIN)).data
    node = data
    *path, last = [int(part) if part.isdigit() else part for part in field.split(".")]
    for part in path:
        node = node[part] if isinstance(node, list) else node.setdefault(part, {})
    node[last] = value
    with pytest.raises(CampaignError) as caught:
        Campaign.from_document(yaml_file.parse(yaml_file.dump(data)))
    return str(caught.value)


@pytest.mark.parametrize("field", FORMS)
def test_each_form_is_told_where_another_kind_stands(field):
    place = field.replace("parameters.*", "parameters.weight").replace(".*", ".0")
    place = place.replace("experts.0", "experts.facts") if "weight" in place else place
    wrong = 3 if field != "workers.batch_tokens" and field != "workers.count" else "many"
    wrong = "x" if field in ("space.layers", "space.parameters.*") else wrong
    wrong = ["x"] if field.endswith("experts.*") and "parameters" in field else wrong
    assert FORMS[field] in refusal(place, wrong)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("space.parameters.weight", [0, 1], "found [0, 1], expected a range written as {low: 0, high: 1}"),
        ("space.parameters.weight", [-0.5, 2.0], "a range written as {low: -0.5, high: 2.0}"),
        ("space.parameters.weight", [1, 0], "expected a value, or a range, such as"),
        ("space.parameters.weight", {"low": 0, "high": 1, "experts": {"facts": [0, 1]}}, "a range written"),
        ("models.experts", "zoo:facts", 'models.experts: found "zoo:facts", expected a list of models'),
        ("models.experts", [], "found [], expected at least one entry"),
        ("models.base", 3, 'found 3, expected a text, such as "3" in quotes'),
        ("name", None, "found nothing, expected a text"),
        ("search.sampler", "cma", 'random, qmc; did you mean "cmaes"?'),
        ("search.trials", 2.5, "found 2.5, expected a whole number"),
        ("objectives.0.weight", 0, "found 0, expected more than 0"),
        ("models.allow_pickle", "maybe", 'found "maybe", expected true or false'),
    ],
)  # fmt: skip
def test_what_was_found_and_what_was_expected(field, value, said):
    assert said in refusal(field, value)
