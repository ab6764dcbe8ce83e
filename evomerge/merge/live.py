"""One live model whose weights are rewritten, in place, for every candidate."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from evomerge.candidate import Merge, Recipe, Vocabulary
from evomerge.errors import MergeError, ModelError, RecipeError
from evomerge.merge import quantise as quantised
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.devices import free_memory, torch_dtype, usable_device
from evomerge.merge.engine import MergeRun
from evomerge.merge.gradients import GradientTape, recomputed, recorded
from evomerge.merge.heads import is_tied, untied_config
from evomerge.merge.layout import Layout
from evomerge.merge.memory import Memory
from evomerge.merge.models import open_models
from evomerge.merge.names import auto_class, parameter_names
from evomerge.merge.plan import MergePlan, plan_merge

SHARE_OF_MEMORY = 0.25  # of what is free when the model is built


@dataclass
class Held:
    """What a module holds, for who is to hold the same.

    Attributes:
        version: Another one after each write, whole or broken off.
        source: The last merge; None: nothing was written yet.
        noise: What drew the task vectors of its experts; None: they are the experts' own.
        names: Of its tensors in the files; none where the module's are not those of the files.
    """

    version: int = 0
    source: Merge | Recipe | None = None
    noise: int | None = None
    names: tuple[str, ...] = ()

    def change(self, source: Merge | Recipe, noise: int | None, names: tuple[str, ...]) -> None:
        """Say what is written from now on."""
        self.version += 1
        self.source, self.noise, self.names = source, noise, names


class LiveModel:
    """Base and experts kept resident, and one module that any recipe over them is written into.

    Writing a recipe gives, to the bit, what saving it and loading the result in `dtype` gives.

    Attributes:
        module: The causal language model, in evaluation mode; it starts as the base.
        models: What is resident.
        checkpoints: Every model of it by its name.
        device: Of the live weights and of the maths.
        held: What the module holds.

    Args:
        models: Names as in recipes, the base first.
        vocabulary: How all recipes match rows by token; None: the models have one vocabulary.
        dtype: Of the live weights: float32, bfloat16, float16 or float64.
        device: Of the live weights and of the maths.
        trust_remote_code: Let the models run code of their own.
        allow_pickle: Accept PyTorch pickles where there is no safetensors file.
        resident_bytes: How much may be spent on keeping task vectors, their orders and masks from one
            merge to the next; default a quarter of the memory that is free. What does not fit is read and
            computed again each time, with the same result.
        quantise: nf4, fp4 or int8: what is written is kept in such codes (`merge.quantise`), without
            gradients; None: in full precision.

    Raises:
        ModelError: A model is missing, damaged, or of another family, or it cannot be quantised.
        UserError: The device or dtype does not exist.
    """

    def __init__(
        self,
        models: Sequence[str],
        *,
        dtype: str,
        device: torch.device | str = "cpu",
        trust_remote_code: bool = False,
        allow_pickle: bool = False,
        resident_bytes: int | None = None,
        vocabulary: Vocabulary | None = None,
        quantise: str | None = None,
    ) -> None:
        self.device, self._dtype = usable_device(device), torch_dtype(dtype)
        self.models = open_models(
            models, vocabulary, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle
        )
        self.checkpoints = self.models.checkpoints
        base = self.models.base
        placed = _placed(self.device) | quantised.loading(quantise, self._dtype, self.device)
        module = _load_module(base, self._dtype, trust_remote_code, placed)
        matched = self.models.vocabulary
        rows = base.rows if matched is None else matched.rows
        if rows is not None and rows != len(module.get_input_embeddings().weight):
            module.resize_token_embeddings(rows, mean_resizing=False)
        self.module: PreTrainedModel = module.to(self.device).eval()
        self.module.requires_grad_(False)
        if resident_bytes is None:
            resident_bytes = int(free_memory(self.device) * SHARE_OF_MEMORY)
        self._memory = Memory(resident_bytes)
        self._parameters = parameter_names(
            base.config, base.tensors, trust_remote_code=trust_remote_code
        )
        self._stored = {own: stored for stored, own in self._parameters.items()}
        self._find_targets()
        self.held = Held()
        self._noise: int | None = None
        if quantise is not None and not self._targets.keys() >= base.tensors.keys():
            raise ModelError(quantised.FUSED.format(quantise), file=base.name)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the merged models: the base's, or as `vocabulary` says.

        Raises:
            ModelError: The base has none.
        """
        return self.models.tokenizer

    def keep(self, budget: int, *, for_inputs: int = 0) -> None:
        """Say again how much may be kept from one merge to the next; nothing is kept yet after it.

        Args:
            budget: Bytes, as `resident_bytes`.
            for_inputs: How much of it only models and task vectors may take; what is computed from them
                (orders, random numbers) gets the rest.
        """
        self._memory = Memory(budget, for_inputs=for_inputs)

    def twin(self) -> LiveModel:
        """Return another live model over what is resident, with a module of its own."""
        other = copy.copy(self)
        other.module = copy.deepcopy(self.module)
        other._find_targets()
        other.held = Held()
        return other

    def randomised(self, seed: int) -> LiveModel:
        """Return the same module over experts whose task vectors are noise of the same norms.

        Args:
            seed: Draws the noise.

        Raises:
            MergeError: The models are matched by token, so that there is no task vector of each tensor.
        """
        other = copy.copy(self)
        other.models = self.models.randomised(seed)
        other.checkpoints, other._noise = other.models.checkpoints, seed
        other._memory = Memory()
        return other

    def write(self, source: Merge | Recipe) -> None:
        """Write a merge's weights into the module.

        Args:
            source: Over models that this object was built with, and with as many layers as the module.

        Raises:
            RecipeError: It is wrong, or names another model.
            MergeError: The maths has no answer, or it makes another number of layers. The module
                then holds a mix of old and new weights, and the next write gives a whole model again.
        """
        self._write(source, self.run(source))

    def tensors_held(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the tensors of the last merge as the module holds them, by their names in the files."""
        for name in self.held.names:
            yield name, self._targets[name]

    @contextmanager
    def gradients(
        self, source: Merge | Recipe, *, recompute: bool = False, rows: bool = False
    ) -> Iterator[GradientTape]:
        """Write a merge's weights, and take the gradients of losses by its numbers.

        Within the context the parameters require gradients; `loss.backward()`, as often as wanted, adds to
        what the tape holds and leaves no gradient behind. What the model's dtype rounds away has no
        part in a gradient.

        Args:
            source: As for `write`.
            recompute: Recompute the layers in the backward pass instead of keeping what it needs
                (gradient checkpointing): the same gradients, less memory, a third more time. Nothing may
                be cached meanwhile.
            rows: Take the gradients by the weights of single rows, too.

        Raises:
            RecipeError: As `write` does.
            MergeError: As `write` does; or the method has no gradients, or none by row, or the module's
                tensors are not those of the files (experts fused at loading).
        """
        self._refuse_quantised("gradients")
        run = self.run(source, differentiated=True)
        if not self._is_by_name(run.plan):
            raise MergeError(
                "gradients are not available: transformers converts the files' tensors when it loads them "
                "(experts fused at loading); choose a sampler that needs none"
            )
        tape = GradientTape(run, by_row=rows)
        self._write(source, run)
        layers = self._layers() if recompute else ()
        with recorded(tape, self._targets), recomputed(layers):
            yield tape

    def load(
        self, config: PretrainedConfig, tensors: Mapping[str, torch.Tensor]
    ) -> PreTrainedModel:
        """Return another module of the class of `module`, as if its tensors were read from a file.

        Args:
            config: Of the new module.
            tensors: By name; the module may share their memory.

        Raises:
            MergeError: They are not those of such a model, or the live model is quantised.
        """
        self._refuse_quantised("candidates that are modules of their own")
        state = {
            name: tensor.to(self._dtype) if tensor.is_floating_point() else tensor
            for name, tensor in tensors.items()
        }
        with _without_bars():
            loaded, report = type(self.module).from_pretrained(
                None,
                config=config,
                state_dict=state,
                dtype=self._dtype,
                output_loading_info=True,
                **_placed(self.device),
            )
        unused = report["unexpected_keys"] or report["missing_keys"] or report["mismatched_keys"]
        if unused:
            raise MergeError(f"transformers does not take the merged tensors: {sorted(unused)[0]}")
        loaded.generation_config = self.module.generation_config
        module: PreTrainedModel = loaded.eval()
        return module.requires_grad_(False)

    def run(self, source: Merge | Recipe, *, differentiated: bool = False) -> MergeRun:
        """Return the run of a merge over the resident models, as `MergeRun` is; raises as `write` does."""
        for name in source.model_names():
            if name not in self.checkpoints:
                raise RecipeError(f"{name} is none of the models that were loaded")
        matched = self.models.vocabulary
        asked = None if matched is None else matched.asked
        if source.vocabulary != asked:
            raise RecipeError(
                f"found {source.vocabulary}, the live model was built with {asked}",
                field="tokenizer",
            )
        plan = plan_merge(source, self.checkpoints)
        layers = plan.config.get_text_config().num_hidden_layers
        own_layers = self.module.config.get_text_config().num_hidden_layers
        if layers != own_layers:
            raise MergeError(f"the merge makes {layers} layers, the live model has {own_layers}")
        seen = self.models.seen(plan)
        return MergeRun(
            plan, seen, device=self.device, memory=self._memory, differentiated=differentiated
        )

    def stored_as(self, parameter: str) -> str:
        """Return the name in the models' files of a parameter of the module."""
        return self._stored.get(parameter, parameter)

    def _find_targets(self) -> None:
        self._targets = _targets(self.module, self._parameters)
        layers = quantised.quantised_layers(self.module)
        self._quantised = {self.stored_as(name): layer for name, layer in layers}

    def _refuse_quantised(self, what: str) -> None:
        if self._quantised:
            raise MergeError(f"{what} need weights in full precision; leave scorer.quantise out")

    def _write(self, source: Merge | Recipe, run: MergeRun) -> None:
        by_name = self._is_by_name(run.plan)
        names = tuple(piece.name for piece in run.plan.tensors) if by_name else ()
        self.held.change(source, self._noise, names)
        if not by_name:
            self._write_converted(run)
            return
        self._check_complete({piece.name for piece in run.plan.tensors})
        for piece in run.plan.tensors:
            layer = self._quantised.get(piece.name)
            if layer is None:
                run.write(piece, self._targets[piece.name])
            else:
                quantised.write(layer, run.merged(piece, shared=True).to(self._dtype))

    def _is_by_name(self, plan: MergePlan) -> bool:
        return all(piece.name in self._targets for piece in plan.tensors)

    def _layers(self) -> tuple[torch.nn.Module, ...]:
        layout = Layout.of(self.models.base)
        stored = layout.name(0, layout.layers[0][0])
        own = self._parameters.get(stored, stored)
        stack = own.removesuffix(stored.removeprefix(layout.prefix)).rstrip(".")
        return tuple(self.module.get_submodule(stack).children())

    def _write_converted(self, run: MergeRun) -> None:
        """For files whose tensors are not the module's (experts fused at loading): load as a file is."""
        converted = self.load(self.module.config, dict(run.tensors())).state_dict()
        with torch.no_grad():
            for name, target in self.module.state_dict().items():
                target.copy_(converted[name])

    def _check_complete(self, names: set[str]) -> None:
        written = {self._targets[name].data_ptr() for name in names}
        for name, target in self._targets.items():
            if target.numel() and target.data_ptr() not in written:
                raise MergeError(f"{name} is in the live model and in none of the files")


def _load_module(
    base: Checkpoint, dtype: torch.dtype, trust_remote_code: bool, placed: Mapping[str, Any]
) -> PreTrainedModel:
    """Load the base tensor by tensor to its device: the host never holds a copy of a model for a GPU."""
    try:
        with _without_bars():
            module: PreTrainedModel = auto_class(base.config).from_pretrained(
                base.folder, dtype=dtype, trust_remote_code=trust_remote_code, **placed
            )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"transformers cannot load it: {reason}", file=base.name) from None
    if is_tied(module.config) and not is_tied(base.config):
        _untie(module)
    return module


def _placed(device: torch.device) -> dict[str, Any]:
    return {} if device.type == "cpu" else {"device_map": {"": device}}


def _untie(module: PreTrainedModel) -> None:
    """Give a module with a tied output head a copy of the embeddings as head of its own."""
    head = module.get_output_embeddings()
    if head is not None:
        module.config = untied_config(module.config)
        head.weight = torch.nn.Parameter(module.get_input_embeddings().weight.detach().clone())


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keep transformers' own progress bars off the terminal; progress is the caller's to show."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _targets(module: torch.nn.Module, parameters: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """Everything that a file may hold, by name; tied tensors appear under each of their names.

    Args:
        module: The model.
        parameters: Name in the files → the module's own, where they differ.
    """
    own = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    own |= {name for name, _ in module.named_buffers(remove_duplicate=False)}
    state = {name: one for name, one in module.state_dict(keep_vars=True).items() if name in own}
    return state | {stored: state[own] for stored, own in parameters.items() if own in state}
