"""Whether vLLM's engine holds a campaign's candidates as adapters: `scorer.args.max_loras`."""

from __future__ import annotations

from collections.abc import Iterator

from evomerge.config import Campaign
from evomerge.errors import CampaignError
from evomerge.merge.exact_adapters import RANKS, summed_rank
from evomerge.merge.location import split_adapter
from evomerge.preflight.family import OpenFamily

MOST, RANK = "max_loras", "max_lora_rank"
SUMS = frozenset({"linear", "task_arithmetic"})
"""Methods that add weighted task vectors to the base, whatever their parameters are."""


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
    if SUMS.isdisjoint(campaign.space.methods):
        raise _error(
            MOST,
            f"found {arguments[MOST]}, but no candidate of this space is an adapter: those are merges by "
            f"{' or '.join(sorted(SUMS))}; leave it out",
        )
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
    sizes = ", ".join(map(str, RANKS))
    if arguments.get(RANK, RANKS[0]) not in RANKS:
        raise _error(RANK, f"found {arguments[RANK]}, expected one of vLLM's sizes: {sizes}")
    if arguments.get(RANK, needed) < needed:
        raise _error(
            RANK,
            f"found {arguments[RANK]}, expected {needed} or more, to which the ranks of the experts sum",
        )


def in_vain(campaign: Campaign, family: OpenFamily) -> Iterator[str]:
    """Yield a warning for whatever makes `max_loras` useless: processors, experts that are more than LoRA."""
    if MOST not in campaign.scorer.args:
        return
    if not campaign.workers.gpus:
        yield (
            f"scorer.args.{MOST}: without a GPU vLLM is slower with adapters than where weights are "
            "written into it (benchmarks/speed/vllm_adapters.py); leave it out"
        )
    rows = set(family.base.vocabulary_tensors.names)
    for name, model in family.family.experts.items():
        expert = family.checkpoints[model]
        other = sorted(expert.adapted - expert.updates.keys() | expert.updates.keys() & rows)
        if other:
            yield (
                f"scorer.args.{MOST}: {name} trains {other[0]}, which is no linear layer: candidates with a "
                "part of it are merged, and written into vLLM one by one"
            )


def _error(name: str, message: str) -> CampaignError:
    return CampaignError(message, field=f"scorer.args.{name}")
