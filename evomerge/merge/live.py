"""One live model whose weights are rewritten, in place, for every candidate."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    AutoConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from evomerge.candidate import Merge, Recipe, Vocabulary
from evomerge.errors import MergeError, ModelError, RecipeError
from evomerge.merge import quantise as quantised
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.devices import free_memory, torch_dtype, usable_devices
from evomerge.merge.engine import MergeRun
from evomerge.merge.gradients import GradientTape, recomputed, recorded
from evomerge.merge.layout import Layout
from evomerge.merge.loading import load_base, load_tensors
from evomerge.merge.memory import Memory
from evomerge.merge.models import open_models
from evomerge.merge.names import model_names, parameter_names
from evomerge.merge.plan import MergePlan, TensorPlan, plan_merge
from evomerge.merge.spread import device_of, spread

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
        devices: Of the live weights and of the maths of each tensor, in the order of the layers.
        device: The first of them, which takes tokens and gives logits.
        memories: What is kept on each of them from one merge to the next.
        held: What the module holds.

    Args:
        models: Names as in recipes, the base first.
        vocabulary: How all recipes match rows by token; None: the models have one vocabulary.
        dtype: Of the live weights: float32, bfloat16, float16 or float64.
        device: Of the live weights and of the maths.
        devices: Over how many devices of that type they are spread, layer by layer.
        trust_remote_code: Let the models run code of their own.
        allow_pickle: Accept PyTorch pickles where there is no safetensors file.
        resident_bytes: How much of each device may be spent on keeping task vectors, their orders and masks
            from one merge to the next; default a quarter of the memory that is free. What does not fit is
            read and computed again each time, with the same result.
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
        devices: int = 1,
        trust_remote_code: bool = False,
        allow_pickle: bool = False,
        resident_bytes: int | None = None,
        vocabulary: Vocabulary | None = None,
        quantise: str | None = None,
    ) -> None:
        self.devices, self._dtype = usable_devices(device, devices), torch_dtype(dtype)
        self.device, self._trusts = self.devices[0], trust_remote_code
        self.models = open_models(
            models, vocabulary, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle
        )
        self.checkpoints = self.models.checkpoints
        base = self.models.base
        module = self._load_base(base, quantise)
        matched = self.models.vocabulary
        rows = base.rows if matched is None else matched.rows
        if rows is not None and rows != len(module.get_input_embeddings().weight):
            module.resize_token_embeddings(rows, mean_resizing=False)
        if len(self.devices) == 1:
            module.to(self.device)
        self.module: PreTrainedModel = module.eval().requires_grad_(False)
        self.keep(
            Memory(
                int(free_memory(each) * SHARE_OF_MEMORY)
                if resident_bytes is None
                else resident_bytes
            )
            for each in self.devices
        )
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

    def keep(self, memories: Iterable[Memory]) -> None:
        """Say again what may be kept on each device from one merge to the next; nothing is kept yet after it.

        Args:
            memories: Empty, one a device.
        """
        self.memories = dict(zip(self.devices, memories, strict=True))

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
        other.keep(Memory() for _ in self.devices)
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

    def write_layer(self, source: Merge | Recipe, layer: int | None) -> None:
        """Write a merge's weights into one layer, and leave the rest as it is until the next whole write.

        Args:
            source: As for `write`.
            layer: Its number; None: what is outside the layers.

        Raises:
            RecipeError: As `write` does.
            MergeError: As `write` does, or the module's tensors are not those of the files.
        """
        run = self.run(source)
        if not self._is_by_name(run.plan):
            raise MergeError(
                "layers are not written one by one: transformers converts the files' tensors when it loads "
                "them (experts fused at loading)"
            )
        self.held.change(source, self._noise, ())
        layer_of = Layout.of(self.models.base).layer_of
        self._put(run, [piece for piece in run.plan.tensors if layer_of(piece.name) == layer])

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
        layers = self.layers() if recompute else ()
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
        return load_tensors(
            self.module, config, state, dtype=self._dtype, **self._device_map(config)
        )

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
            plan,
            seen,
            device=self.places(self.module.config),
            memory=self.memories,
            differentiated=differentiated,
        )

    def places(self, config: PretrainedConfig) -> Callable[[str], torch.device]:
        """Return what says on which device a tensor of a model of this configuration lies, by its name."""
        places = self._places(config)
        targets = self._targets if config is self.module.config else {}

        def find(name: str) -> torch.device:
            if name in targets and places:  # else a tensor says `cuda:0` where the device is `cuda`
                return targets[name].device
            return self.devices[device_of(name, places)]

        return find

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

    def _load_base(self, base: Checkpoint, quantise: str | None) -> PreTrainedModel:
        code, config = self._trusts, base.config
        if len(self.devices) > 1:  # whose head may be tied where that of `base` is not
            config = AutoConfig.from_pretrained(base.folder, trust_remote_code=code)
        options = quantised.loading(quantise, self._dtype, self.device) | self._device_map(config)
        return load_base(base, dtype=self._dtype, trust_remote_code=code, **options)

    def _device_map(self, config: PretrainedConfig) -> dict[str, Any]:
        """Return transformers' arguments that put a model of this configuration on the devices."""
        if self.device.type == "cpu":
            return {}
        places = self._places(config) or {"": 0}
        return {"device_map": {name: self.devices[place] for name, place in places.items()}}

    def _places(self, config: PretrainedConfig) -> Mapping[str, int]:
        if len(self.devices) == 1:
            return {}
        names = model_names(config, trust_remote_code=self._trusts)
        return {} if names is None else spread(names.parts, len(self.devices))

    @torch.no_grad()
    def _write(self, source: Merge | Recipe, run: MergeRun) -> None:
        by_name = self._is_by_name(run.plan)
        names = tuple(piece.name for piece in run.plan.tensors) if by_name else ()
        self.held.change(source, self._noise, names)
        if not by_name:
            self._write_converted(run)
            return
        self._check_complete({piece.name for piece in run.plan.tensors})
        self._put(run, run.plan.tensors)

    def _put(self, run: MergeRun, pieces: Iterable[TensorPlan]) -> None:
        plain = []
        for piece in pieces:
            layer = self._quantised.get(piece.name)
            if layer is None:
                plain.append((piece, self._targets[piece.name]))
            else:
                quantised.write(layer, run.merged(piece, shared=True).to(self._dtype))
        run.write(plain)

    def _is_by_name(self, plan: MergePlan) -> bool:
        return all(piece.name in self._targets for piece in plan.tensors)

    def layers(self) -> tuple[torch.nn.Module, ...]:
        """Return the layers of the module, in their order."""
        layout = Layout.of(self.models.base)
        stored = layout.name(0, layout.layers[0][0])
        own = self._parameters.get(stored, stored)
        stack = own.removesuffix(stored.removeprefix(layout.prefix)).rstrip(".")
        return tuple(self.module.get_submodule(stack).children())

    def _write_converted(self, run: MergeRun) -> None:
        """For files whose tensors are not the module's (experts fused at loading): load as a file is."""
        converted = self.load(self.module.config, dict(run.tensors())).state_dict()
        for name, target in self.module.state_dict().items():
            target.copy_(converted[name])

    def _check_complete(self, names: set[str]) -> None:
        written = {self._targets[name].data_ptr() for name in names}
        for name, target in self._targets.items():
            if target.numel() and target.data_ptr() not in written:
                raise MergeError(f"{name} is in the live model and in none of the files")


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
