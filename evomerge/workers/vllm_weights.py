"""The live model's weights, written into a running vLLM.

Where vLLM computes in this process, it copies the live weights, which are merged already. Its processes for
several GPUs get the recipe only: each keeps the models open, merges tensor by tensor, and takes its part.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from evomerge.candidate import Merge, Recipe
from evomerge.merge.engine import MergeRun
from evomerge.merge.live import LiveModel
from evomerge.merge.models import OpenModels, open_models
from evomerge.merge.plan import plan_merge
from evomerge.merge.statistics import look_in
from evomerge.merge.tokenizer_files import TokenizerFiles
from evomerge.merge.user_methods import use
from evomerge.scoring import VllmScorer
from evomerge.scoring.vllm_engine import BASE, processes
from evomerge.workers.setup import WorkerSetup
from evomerge.workers.vllm_adapters import adapter_arguments
from evomerge.workers.vllm_memory import VllmMemory

if TYPE_CHECKING:
    from vllm import LLM


class LiveWeights:
    """What vLLM's worker can do besides, called by `collective_rpc`: `worker_extension_cls`.

    Attributes:
        merge_version: Of the weights that it holds; None: of none, or of half.
    """

    model_runner: Any  # vLLM's
    device: torch.device
    merge_setup: WorkerSetup
    merge_models: OpenModels | None = None
    merge_version: int | None = None

    def open_merges(self, setup: WorkerSetup) -> None:
        """Say what merges are made of; it is opened once it is needed."""
        self.merge_setup = setup

    def write_merge(self, version: int, source: Merge | Recipe, noise: int | None) -> None:
        """Merge and hold the result.

        Args:
            version: Of the weights.
            source: Over the models of the setup.
            noise: Draws the random task vectors that stand for the experts' own; None: those do.
        """
        models = self._merge_models()
        if noise is not None:
            models = models.randomised(noise)
        plan = plan_merge(source, models.checkpoints)
        run = MergeRun(plan, models.seen(plan), device=self.device)
        self.write_tensors(version, run.tensors())

    def write_tensors(self, version: int, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Hold a model's tensors, which have the names of its files and stay as they are meanwhile."""
        self.merge_version = None
        try:
            self.model_runner.reload_weights(weights_iterator=iter(tensors))
            self._repack_heads()
            self.merge_version = version
        finally:
            if self.merge_version is None:
                self._end_reload()

    def written_version(self) -> int | None:
        """Return the version of the weights that are held."""
        return self.merge_version

    def _merge_models(self) -> OpenModels:
        if self.merge_models is None:
            setup = self.merge_setup
            use(setup.method_file)
            look_in(setup.results)
            self.merge_models = open_models(
                setup.models,
                setup.vocabulary,
                trust_remote_code=setup.trust_remote_code,
                allow_pickle=setup.allow_pickle,
            )
        return self.merge_models

    def _end_reload(self) -> None:
        """Let the next weights begin from none, not behind those that half a reload left."""
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        finalize_layerwise_reload(self.model_runner.get_model(), self.model_runner.model_config)

    def _repack_heads(self) -> None:
        """Pack an output head again that is tied to the embeddings: vLLM's reload packs only those."""
        from vllm.model_executor.layers.vocab_parallel_embedding import (
            ParallelLMHead,
            UnquantizedEmbeddingMethod,
        )

        for module in self.model_runner.get_model().modules():
            method = getattr(module, "quant_method", None)
            if isinstance(module, ParallelLMHead) and isinstance(
                method, UnquantizedEmbeddingMethod
            ):
                method.process_weights_after_loading(module)


class WorkerWeights:
    """What a worker's live model holds, for vLLM.

    Args:
        live: The live model.
        setup: The worker's.
        apart: Whether vLLM computes in processes of its own.
    """

    def __init__(self, live: LiveModel, setup: WorkerSetup, *, apart: bool = False) -> None:
        self._live, self._setup, self._apart = live, setup, apart
        self._opened = False

    @property
    def version(self) -> int:
        """Another one after each write of the live model."""
        return self._live.held.version

    def write(self, llm: LLM) -> None:
        """Let each of the engine's processes hold them."""
        held = self._live.held
        if not self._apart and held.names:
            tensors = self._live.tensors_held()
            llm.collective_rpc("write_tensors", args=(held.version, tensors))
            return
        self._merge(llm, held.version, held.source, held.noise)

    def write_base(self, llm: LLM) -> None:
        """Let each of the engine's processes hold the base, which the live model need not hold."""
        base = Merge("passthrough", (self._setup.models[0],), dtype=self._setup.dtype)
        if self._apart:
            self._merge(llm, BASE, base, None)
        else:
            llm.collective_rpc("write_tensors", args=(BASE, self._live.run(base).tensors()))

    def _merge(
        self, llm: LLM, version: int, source: Merge | Recipe | None, noise: int | None
    ) -> None:
        if not self._opened:
            llm.collective_rpc("open_merges", args=(self._setup,))
            self._opened = True
        llm.collective_rpc("write_merge", args=(version, source, noise))


def serve(scorer: VllmScorer, live: LiveModel, setup: WorkerSetup) -> None:
    """Let vLLM write the live model's texts. Raises TaskError where it does not start."""
    with TemporaryDirectory(prefix="evomerge-vllm-") as name:
        folder = Path(name)
        _write_served(live, folder)
        arguments = (
            _defaults(setup)
            | adapter_arguments(live, setup)
            | {
                "model": str(folder),
                "load_format": "dummy",
                "generation_config": "vllm",
                "worker_extension_cls": f"{__name__}.{LiveWeights.__name__}",
            }
        )
        apart = processes(arguments | dict(scorer.arguments)) > 1
        if apart:
            arguments["distributed_executor_backend"] = "mp"
        weights = WorkerWeights(live, setup, apart=apart)
        scorer.serve(live.module, weights, arguments)


def _defaults(setup: WorkerSetup) -> dict[str, Any]:
    """Return engine arguments for where the campaign says nothing."""
    found: dict[str, Any] = {
        "dtype": setup.dtype,
        "seed": 0,
        "enable_prefix_caching": True,
        "trust_remote_code": setup.trust_remote_code,
        "tensor_parallel_size": setup.gpus,
    }
    memory = VllmMemory.of(setup.backend, setup.backend_arguments, setup.sharing)
    assert memory is not None
    if setup.device == "cpu":
        return found | {"enforce_eager": True, "kv_cache_memory_bytes": memory.kv_bytes}
    return found | {"gpu_memory_utilization": memory.part}


def _write_served(live: LiveModel, folder: Path) -> None:
    """Write the configuration and the tokenizer of what is merged, from which vLLM starts without weights."""
    config = copy.deepcopy(live.module.config)
    if live.models.vocabulary is not None:
        live.models.vocabulary.configure(config)
    config.save_pretrained(folder)
    TokenizerFiles.plan(None, live.models).write(folder)
