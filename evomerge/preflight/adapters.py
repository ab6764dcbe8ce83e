"""Whether vLLM's engine holds a campaign's candidates as adapters: `scorer.args.max_loras`."""

from __future__ import annotations

from evomerge.config import Campaign
from evomerge.errors import CampaignError
from evomerge.merge.exact_adapters import RANKS, summed_rank
from evomerge.merge.location import split_adapter
from evomerge.preflight.family import OpenFamily

MOST, RANK = "max_loras", "max_lora_rank"


def check_adapters(campaign: Campaign, family: OpenFamily) -> None:
    """Check the numbers that a campaign gives for adapters against its experts.

    Raises:
        CampaignError: Naming both what was found and what was expected.
    """
    arguments = campaign.scorer.args
    if campaign.scorer.backend != "vllm" or not {MOST, RANK} & arguments.keys():
        return
    for name in (MOST, RANK):
        found = arguments.get(name, 1)
        if type(found) is not int or found < 1:
            raise _error(name, f"found {found!r}, expected a whole number of 1 or more")
    if MOST not in arguments:
        raise _error(RANK, f"is for candidates as adapters; give {MOST} too, or leave it out")
    experts = family.family.experts
    full = [name for name, model in experts.items() if split_adapter(model)[1] is None]
    if full:
        raise _error(
            MOST,
            f"found {arguments[MOST]}, but the expert {full[0]} is a full model, and only a merge of LoRA "
            "adapters is an adapter; leave it out",
        )
    needed = summed_rank(family.checkpoints[model] for model in experts.values())
    if needed > RANKS[-1]:
        raise _error(
            MOST,
            f"the ranks of the experts sum to {needed}, and vLLM takes adapters of {RANKS[-1]} at most; "
            "leave it out",
        )
    if arguments.get(RANK, needed) < needed:
        raise _error(
            RANK,
            f"found {arguments[RANK]}, expected {needed} or more, to which the ranks of the experts sum",
        )


def _error(name: str, message: str) -> CampaignError:
    return CampaignError(message, field=f"scorer.args.{name}")
