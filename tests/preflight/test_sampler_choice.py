from types import SimpleNamespace

import pytest

from evomerge.config import Campaign
from evomerge.errors import CampaignError
from evomerge.preflight import sampler_choice
from evomerge.preflight.sampler_choice import with_sampler

GRADIENTD, FLAT = (
    SimpleNamespace(differentiable=("weight/one",), takes_rows=False),
    SimpleNamespace(differentiable=()),
)


@pytest.fixture(autouse=True)
def _gold(monkeypatch):
    monkeypatch.setattr(sampler_choice, "gold_count", lambda items, task: items.count(task))


def campaign(sampler="auto", **changes):
    return Campaign.model_validate(
        {
            "name": "small",
            "models": {"base": "/m/base", "experts": ["/m/one"]},
            "space": {"method": "linear", "parameters": {"weight": {"low": 0.0, "high": 1.0}}},
            "objectives": [{"task": "one", "metric": "acc"}, {"task": "two", "metric": "acc"}],
            "search": {"sampler": sampler},
            "out": "/out",
            **changes,
        }
    )


@pytest.mark.parametrize(
    ("space", "gold", "changes", "expected"),
    [
        (GRADIENTD, ["one", "two"], {}, "gradient"),
        (GRADIENTD, ["two"], {}, "gradient"),
        (GRADIENTD, ["one"], {"mode": "pareto"}, "gradient"),
        (FLAT, ["one"], {}, "cmaes"),
        (GRADIENTD, [], {}, "cmaes"),
        (GRADIENTD, [], {"mode": "pareto"}, "nsga2"),
        (FLAT, ["one"], {"mode": "pareto"}, "nsga2"),
        (GRADIENTD, ["one"], {"scorer": {"backend": "hf"}}, "cmaes"),
        (GRADIENTD, ["one"], {"scorer": {"quantise": "nf4"}}, "cmaes"),
    ],
)
def test_auto_is_gradient_wherever_there_is_one(space, gold, changes, expected):
    before = campaign(**changes)
    after = with_sampler(before, space, gold)
    assert after.search.sampler == expected
    assert after == before.model_copy(
        update={"search": before.search.model_copy(update={"sampler": expected})}
    )


@pytest.mark.parametrize("sampler", ["cmaes", "tpe", "random", "gradient"])
def test_a_sampler_that_was_named_stays(sampler):
    assert with_sampler(campaign(sampler), GRADIENTD, ["one"]) == campaign(sampler)


@pytest.mark.parametrize(
    ("space", "gold", "changes", "message"),
    [
        (
            FLAT,
            ["one"],
            {},
            r'found "gradient", but no searched number has one.*; use cmaes, or auto',
        ),
        (GRADIENTD, [], {}, "no task has a gold text; use cmaes"),
        (GRADIENTD, [], {"mode": "pareto"}, "no task has a gold text; use nsga2"),
        (GRADIENTD, ["one"], {"scorer": {"backend": "hf"}}, "the backend hf gives no gradients"),
    ],
)
def test_gradient_is_refused_where_there_is_none(space, gold, changes, message):
    with pytest.raises(CampaignError, match=message) as caught:
        with_sampler(campaign("gradient", **changes), space, gold)
    assert caught.value.field == "search.sampler"


@pytest.mark.parametrize("sampler", ["auto", "gradient"])
def test_scales_that_no_method_takes_are_refused(sampler):
    asked = campaign(search={"sampler": sampler, "scales": ["group", "row"]})
    with pytest.raises(CampaignError, match=r"expected \[group\].*found linear") as caught:
        with_sampler(asked, GRADIENTD, ["one"])
    assert caught.value.field == "search.scales"
