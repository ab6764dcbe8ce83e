"""Candidates of the kind `stack`: paths through the layers of several models."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge import config
from evomerge.candidate import Arrays, Stack, no_arrays
from evomerge.candidate.ablation import Ablation, Ablations
from evomerge.errors import CampaignError, nearest
from evomerge.kinds.kind import Builder, ItemPrompts, Kind
from evomerge.kinds.members import members_of
from evomerge.merge.methods import Parameter

if TYPE_CHECKING:
    from torch import nn

    from evomerge.merge.checkpoint import Checkpoint
    from evomerge.merge.live import LiveModel
    from evomerge.space import Family
    from evomerge.space.stack import StackSpace

SCALE = "scale"
PARAMETERS: Mapping[str, Parameter] = {
    SCALE: Parameter("number", "Of a layer's input where the path jumps; above 0.", low=0.0)
}


class StackKind(Kind):
    """Layers of several models behind each other, as one plain model."""

    keys = frozenset({"members", "layers", "order", "repeats", "parameters"})
    parameters = PARAMETERS

    def check(self, settings: config.SpaceSettings) -> None:
        """Check the parameters. Raises CampaignError."""
        for name, value in settings.parameters.items():
            field = f"space.parameters.{name}"
            if name != SCALE:
                raise CampaignError(
                    f'unknown parameter "{name}" of stacks; {nearest(name, [SCALE])}', field=field
                )
            if isinstance(value, bool):
                raise CampaignError(f"found {value}, expected a number or a range", field=field)
            is_range = isinstance(value, config.Range)
            low = value.low if isinstance(value, config.Range) else float(value)
            if low <= 0:
                where = f"{field}.low" if is_range else field
                raise CampaignError(f"found {low:g}, expected a scale above 0", field=where)
            if isinstance(value, config.Range):
                _check_plain(value, field)

    def space(self, settings: config.SpaceSettings, family: Family, seed: int) -> StackSpace:
        """Lay out indicators, whose layers, and scales."""
        from evomerge.combine.stack import scale_fault
        from evomerge.space import layer_groups
        from evomerge.space.stack import SKIP, StackSpace

        members = members_of(settings, family, tuple(family.experts), [SKIP])
        scale = settings.parameters.get(SCALE, 1.0)
        fault = scale_fault(family.model_type) if scale != 1 and family.model_type else None
        if fault is not None:
            raise CampaignError(f"{fault}; leave {SCALE} out", field=f"space.parameters.{SCALE}")
        layers = settings.layers if "layers" in settings.model_fields_set else "each"
        return StackSpace.build(
            family,
            members,
            layer_groups(layers, family.num_layers),
            repeats=settings.repeats,
            order=settings.order,
            scale=scale,
        )

    def read(self, data: Mapping[str, Any], arrays: Arrays = no_arrays) -> Stack:
        """Return the stack of the fields of its text."""
        return Stack.read(data, arrays)

    def opened(self, live: LiveModel, prompts: ItemPrompts | None = None) -> Builder:
        """Return what builds stacks from the resident models."""
        return _Builder(live)

    def content(self, candidate: Stack, checkpoints: Mapping[str, Checkpoint]) -> Hashable:
        """Return what is equal for stacks of the same tensors, and for a parent as it is."""
        from evomerge.combine.stack import content_of

        return content_of(candidate, checkpoints)

    def ablations(self, candidate: Stack, checkpoints: Mapping[str, Checkpoint]) -> Ablations:
        """Put the base's layers in the place of each member's."""
        if any(one.vocabulary is not None for one in candidate.members.values()):
            note = "The stack has a vocabulary of its own, so the base's layers do not fit into it."
            return Ablations(notes=(note,))
        names = [
            name for name, one in candidate.members.items() if one.experts != (candidate.base,)
        ]
        found = tuple(Ablation(candidate.with_base_for(name), name) for name in names)
        how = "A member is left out: the base's layers stand in the places of its own."
        note = "No group of layers is left out of a stack."
        return Ablations(how, found, notes=(note,))

    def save(self, candidate: Stack, out: Path | str, **options: Any) -> None:  # noqa: ANN401
        """Write the deeper model."""
        from evomerge.combine.stack import save_stack

        save_stack(candidate, out, **options)


class _Builder(Builder):
    def __init__(self, live: LiveModel) -> None:
        from evomerge.combine.stack import StackBuilder

        self._stacks = StackBuilder(live)

    def build(self, candidate: Stack) -> nn.Module:
        module: nn.Module = self._stacks.build(candidate)
        return module


def _check_plain(scale: config.Range, field: str) -> None:
    """Refuse what a range of merges may have, and one of stacks does not use."""
    plain = config.Range(low=scale.low, high=scale.high, log=scale.log)
    for key in ("per", "sum", "experts"):
        if getattr(scale, key) != getattr(plain, key):
            raise CampaignError(
                f"{key} is of merges; every junction has a scale of its own", field=f"{field}.{key}"
            )
