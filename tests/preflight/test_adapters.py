"""The numbers of `scorer.args` for candidates as adapters, against the experts of a campaign."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evomerge.config import Campaign, Models, ScorerSettings, Workers
from evomerge.errors import CampaignError
from evomerge.preflight.adapters import check_adapters, in_vain
from evomerge.preflight.check import Preflight
from evomerge.preflight.family import open_family
from evomerge.search.racing import race_faults
from tests.combine.crew import adapter
from tests.conftest import Family

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers"),
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
]
Check = Callable[..., list[str]]


@pytest.fixture
def check(small: Preflight, llama_family: Family, tmp_path: Path) -> Check:
    """Checks experts of the ranks, `full` being a full model, with scorer arguments."""

    def check(
        ranks: tuple[int, ...],
        full: bool = False,
        options: Any = None,
        gpus: int = 1,
        **arguments: Any,
    ) -> list[str]:
        base, options = llama_family.base, options or {}
        made = [
            str(adapter(base, tmp_path / f"a{n}", n, r=r, **options)) for n, r in enumerate(ranks)
        ]
        named = [*made, *llama_family.experts[:full]]
        experts = [{"model": model, "name": f"e{n}"} for n, model in enumerate(named)]
        settings = {"base": base, "experts": experts, "dtype": "float32"}
        scorer = ScorerSettings.model_validate({"backend": "vllm", "args": arguments})
        update = {"scorer": scorer, "workers": Workers(gpus=gpus)}
        campaign = small.campaign.model_copy(update=update)
        family = open_family(Models.model_validate(settings))
        check_adapters(campaign, family)
        return list(in_vain(campaign, family))

    return check


def test_adapters_that_fit_are_accepted(check: Check) -> None:
    assert check((2, 6), max_loras=4) == []
    assert check((2, 6), max_loras=4, max_lora_rank=8) == []
    assert check((2,), full=True) == []


def test_without_a_gpu_adapters_do_not_pay(check: Check) -> None:
    (warning,) = check((2,), gpus=0, max_loras=4)
    assert warning.startswith("scorer.args.max_loras: without a GPU vLLM is slower with adapters")
    assert check((2,), gpus=0) == []


@pytest.mark.parametrize(
    ("options", "tensor"),
    [
        ({"modules_to_save": ["norm"]}, "model.layers.0.input_layernorm.weight"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "model.embed_tokens.weight"),
    ],
)
def test_what_makes_adapters_impossible_is_warned_of(
    check: Check, options: dict[str, list[str]], tensor: str
) -> None:
    (warning,) = check((2,), options=options, max_loras=4)
    assert warning.startswith(
        f"scorer.args.max_loras: e0 trains {tensor}, which is no linear layer"
    )
    assert check((2,), options=options) == []


def test_a_method_that_makes_no_adapters_is_refused(small: Preflight) -> None:
    scorer = ScorerSettings.model_validate({"backend": "vllm", "args": {"max_loras": 4}})
    space = small.campaign.space.model_copy(update={"method": ("ties",)})
    campaign = small.campaign.model_copy(update={"scorer": scorer, "space": space})
    with pytest.raises(
        CampaignError, match="found 4, but no candidate of this space is an adapter"
    ):
        check_adapters(campaign, small.family)


@pytest.mark.parametrize(
    ("ranks", "full", "arguments", "message"),
    [
        ((2,), False, {"max_loras": 0}, "max_loras: found 0, expected a whole number of 1 or more"),
        ((2,), False, {"max_loras": "8"}, "max_loras: found '8', expected a whole number"),
        (
            (2,),
            False,
            {"max_lora_rank": 8},
            "max_lora_rank: is for candidates as adapters; give max_loras",
        ),
        ((2,), True, {"max_loras": 8}, "max_loras: found 8, but the expert e1 is a full model"),
        (
            (2, 7),
            False,
            {"max_loras": 8, "max_lora_rank": 8},
            "max_lora_rank: found 8, expected 9 or more",
        ),
        (
            (2, 7),
            False,
            {"max_loras": 8, "max_lora_rank": 9},
            "max_lora_rank: found 9, expected one of vLLM's sizes: 8, 16, 32",
        ),
        (
            (300, 400),
            False,
            {"max_loras": 8},
            "ranks of the experts sum to 700, and vLLM takes .* 512",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    check: Check, ranks: tuple[int, ...], full: bool, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(CampaignError, match=message) as refused:
        check(ranks, full, **arguments)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("scorer", "at_once"),
    [
        ("{}", 1),
        ("{backend: vllm}", 1),
        ("{backend: vllm, args: {max_loras: 6}}", 6),
        ("{backend: hf, args: {max_loras: 6}}", 1),
    ],
)
def test_candidates_that_go_together_are_not_raced(
    small: Preflight, write: Callable[..., Path], scorer: str, at_once: int
) -> None:
    campaign = Campaign.load(write("workers:", f"scorer: {scorer}\nworkers:"))
    assert campaign.scorer.at_once == at_once
    faults = race_faults(campaign, small.items, small.items.higher_is_better)
    assert any("max_loras" in fault for fault in faults) == (at_once > 1)
