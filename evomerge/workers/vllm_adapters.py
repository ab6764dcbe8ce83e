"""Candidates that are adapters of the base, for all of which a running vLLM writes at once.

Nothing is merged for them: each is written as an adapter, in memory, which its prompts name. vLLM holds the
base meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.candidate import Merge
from evomerge.candidate.trial import Job
from evomerge.errors import TaskError
from evomerge.merge.exact_adapters import RANKS, ExactAdapters, Updates, summed_rank
from evomerge.merge.live import LiveModel
from evomerge.scoring import Texts, VllmScorer
from evomerge.workers.scratch import in_memory
from evomerge.workers.setup import WorkerSetup
from evomerge.workers.together import goes_together

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest


class CandidateAdapters:
    """Writes a worker's candidates as adapters, where they are such, and lets vLLM write for them.

    Args:
        scorer: Its vLLM runs, with `adapter_arguments`.
        live: The models.
        setup: The worker's.

    Raises:
        TaskError: vLLM does not take adapters of what the experts adapt.
    """

    def __init__(self, scorer: VllmScorer, live: LiveModel, setup: WorkerSetup) -> None:
        self._scorer, self._live = scorer, live
        self._exact = ExactAdapters(live, trust_remote_code=setup.trust_remote_code)
        self._numbers = count(1)
        self._try(setup)

    def texts(self, jobs: Sequence[Job]) -> dict[int, Texts]:
        """Return what candidates write, by position; of those only that are adapters.

        Raises:
            RuntimeError: vLLM fails.
        """
        with in_memory() as folder:
            asked = {}
            for place, job in enumerate(jobs):
                updates = self._updates(job)
                prompts, _ = self._scorer.asked(self._live.module, job.split, job.metrics)
                if updates is not None and prompts:
                    asked[place] = self._request(updates, folder), prompts
            if not asked:
                return {}
            found = self._scorer.write_for(self._live.module, list(asked.values()))
            return dict(zip(asked, found, strict=True))

    def _updates(self, job: Job) -> Updates | None:
        candidate = job.entry.candidate
        if not goes_together(job) or not isinstance(candidate, Merge):
            return None
        updates = self._exact.updates(candidate)
        finite = all(
            factor.isfinite().all()
            for one in (updates or {}).values()
            for factor in (one.left, one.right)
        )
        return updates if finite else None

    def _request(self, updates: Updates, folder: Path) -> LoRARequest:
        """Write an adapter under a name that vLLM has never seen.

        Also one that adds nothing: on processors vLLM 0.32 takes another prompt's adapter where one has none.
        """
        from vllm.lora.request import LoRARequest

        number = next(self._numbers)
        name = f"candidate {number}"
        self._exact.write(updates, folder / name)
        return LoRARequest(name, number, str(folder / name))

    def _try(self, setup: WorkerSetup) -> None:
        """Let vLLM read an adapter of all that any expert adapts."""
        base, *experts = setup.models
        every = Merge(
            "task_arithmetic", tuple(experts), base, fixed={"weight": 1.0}, dtype=setup.dtype
        )
        updates = None if setup.vocabulary is not None else self._exact.updates(every)
        if not updates:
            return
        with in_memory() as folder:
            request = self._request(updates, folder)
            try:
                self._scorer.write_for(self._live.module, [(request, [])])
            except ValueError as error:
                reason = " ".join(str(error).split())[:400]
                raise TaskError(
                    f"vLLM takes no adapter of these experts: {reason}; leave max_loras out",
                    field="scorer.args.max_loras",
                ) from error


def adapter_arguments(live: LiveModel, setup: WorkerSetup) -> dict[str, Any]:
    """Return vLLM's engine arguments for adapters, where the campaign asks for them by `max_loras`."""
    if "max_loras" not in setup.backend_arguments:
        return {}
    rank = summed_rank(live.checkpoints.values())
    return {
        "enable_lora": True,
        "max_lora_rank": next((size for size in RANKS if size >= rank), RANKS[-1]),
    }
