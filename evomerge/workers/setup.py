"""What a worker needs to start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from evomerge.candidate import Vocabulary
from evomerge.merge.user_methods import MethodFile
from evomerge.workers.placement import Sharing

if TYPE_CHECKING:  # Ray and a test's worker start without lm-eval
    from evomerge.tasks import PromptStyle, SplitPlan, TaskRequest


@dataclass(frozen=True)
class WorkerSetup:
    """Models, items and device of one worker; small, and picklable.

    Attributes:
        models: As recipes name them, the base first.
        dtype: Of the live weights.
        requests: Tasks to load.
        tasks_path: A folder of task files beside lm-eval's own.
        plan: How many items each split gets.
        prompt: How prompts are rendered.
        batch_tokens: Most tokens of one forward pass; `auto`: by the device.
        device: Of the live weights and the forward passes.
        gpus: Over how many GPUs the live weights are spread, where the device is one.
        trust_remote_code: Let models and tasks run code of their own.
        allow_pickle: Accept PyTorch pickles where there is no safetensors file.
        threads: Threads of one worker; None: PyTorch's default.
        backend: vLLM beside the passes over live weights, or one of lm-eval's model types, which loads each
            candidate from a folder; None: those passes alone.
        backend_arguments: Of vLLM, or of that type.
        at_once: How many candidates a worker takes at once, at most.
        allow_unsafe_code: Let tasks run code that a model writes.
        methods: Merge methods of the candidates.
        method_file: What declares those of the user.
        results: The results folder, where statistics lie that they read; None: there is none.
        sharing: Workers that share a node's memory and a GPU's, this one included.
        vocabulary: Whose tokens the candidates have; None: the models all have the same.
        whole_models: How many models of the base's size a candidate holds at once.
        feed_forwards: How many times the feed-forward blocks of one, besides.
        quantise: As of `LiveModel`.
        one_pass: Candidates need nothing of a merge but its result: no gradients, statistics or algebra.
    """

    models: tuple[str, ...]
    dtype: str
    requests: tuple[TaskRequest, ...]
    tasks_path: str | None
    plan: SplitPlan
    prompt: PromptStyle
    batch_tokens: int | Literal["auto"] = "auto"
    device: str = "cpu"
    gpus: int = 1
    trust_remote_code: bool = False
    allow_pickle: bool = False
    threads: int | None = None
    backend: str | None = None
    backend_arguments: Mapping[str, Any] = field(default_factory=dict)
    at_once: int = 1
    allow_unsafe_code: bool = False
    methods: tuple[str, ...] = ()
    method_file: MethodFile | None = None
    results: str | None = None
    sharing: Sharing = field(default_factory=Sharing)
    vocabulary: Vocabulary | None = None
    whole_models: int = 1
    feed_forwards: int = 0
    quantise: str | None = None
    one_pass: bool = False
