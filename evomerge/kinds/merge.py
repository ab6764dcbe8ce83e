"""Candidates of the kind `merge`: averaged weights."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge import config
from evomerge.candidate import Arrays, Merge, no_arrays
from evomerge.candidate.ablation import Ablations
from evomerge.config.faults import at_field
from evomerge.errors import CampaignError, RecipeError, nearest
from evomerge.kinds.kind import Builder, ItemPrompts, Kind, NumberTables
from evomerge.merge.methods import METHODS, Parameter, method
from evomerge.merge.methods.core_space import CORE_SPACE

if TYPE_CHECKING:
    from torch import nn

    from evomerge.merge.checkpoint import Checkpoint
    from evomerge.merge.live import LiveModel
    from evomerge.space import Family, Space


class MergeKind(Kind):
    """Averaged weights by any merge method."""

    keys = frozenset({"method", "layers", "components", "parameters", "subsets"})

    def check(self, settings: config.SpaceSettings) -> None:
        """Check methods and parameters, for which no model is needed. Raises CampaignError."""
        try:
            methods = [method(name) for name in settings.method]
        except RecipeError as error:
            raise CampaignError(error.message, field="space.method") from None
        takes: dict[str, list[Parameter]] = {}
        for one in methods:
            for key, spec in one.parameters.items():
                takes.setdefault(key, []).append(spec)
        for key, value in settings.parameters.items():
            field = f"space.parameters.{key}"
            if key not in takes:
                names = " or ".join(settings.method)
                raise CampaignError(
                    f'unknown parameter "{key}" of {names}; {nearest(key, takes)}', field=field
                )
            for spec in takes[key]:
                check_range(key, value, spec, field)
        for one in methods:
            for key, spec in one.parameters.items():
                if spec.required and key not in settings.parameters:
                    raise CampaignError(
                        f"{one.name} needs the parameter {key}: a value, or a range such as "
                        f"{key}: {{low: 0.0, high: 1.0}}",
                        field="space.parameters",
                    )

    def space(self, settings: config.SpaceSettings, family: Family, seed: int) -> Space:
        """Lay out a dimension for each searched number."""
        from evomerge.merge.validation import check_recipe
        from evomerge.space import Space

        space = Space.build(settings, family, METHODS, seed)
        for name in settings.method:
            with at_field("space.parameters", CampaignError):
                check_recipe(space.candidate(space.middle(name)).recipe())
        if settings.parameters.get(CORE_SPACE) is True:
            _check_adapters(family)
        return space

    def read(self, data: Mapping[str, Any], arrays: Arrays = no_arrays) -> Merge:
        """Return the merge of the fields of its text."""
        return Merge.read(data, arrays)

    def opened(self, live: LiveModel, prompts: ItemPrompts | None = None) -> Builder:
        """Return what writes merges into the live model."""
        return _Builder(live)

    def content(self, candidate: Merge, checkpoints: Mapping[str, Checkpoint]) -> Hashable:
        """Return what is equal for merges of the same tensors, up to rounding."""
        from evomerge.merge.content import content

        return content(candidate, checkpoints)

    def ablations(self, candidate: Merge, checkpoints: Mapping[str, Checkpoint]) -> Ablations:
        """Leave experts out by weight 0, and groups of layers and components by the base's weights."""
        from evomerge.kinds.merge_ablations import ablations

        return ablations(candidate, checkpoints)

    def save(self, candidate: Merge, out: Path | str, **options: Any) -> None:  # noqa: ANN401
        """Merge and write the result."""
        from evomerge.merge.saving import save

        save(candidate, out, **options)


class _Builder(Builder):
    def __init__(self, live: LiveModel) -> None:
        self._live = live

    def build(self, candidate: Merge) -> nn.Module:
        self._live.write(candidate)
        module: nn.Module = self._live.module
        return module

    @contextmanager
    def gradients(
        self, candidate: Merge, recompute: Callable[[nn.Module], bool], *, rows: bool = False
    ) -> Iterator[tuple[nn.Module, Callable[[], NumberTables]]]:
        module = self._live.module
        with self._live.gradients(candidate, recompute=recompute(module), rows=rows) as tape:
            yield module, lambda: (tape.by_number(candidate), tape.by_row(candidate))


def _check_adapters(family: Family) -> None:
    """Check that all experts are adapters on the base, which core space is for."""
    from evomerge.merge.location import split_adapter

    for name, model in family.experts.items():
        body, adapter = split_adapter(model)
        if adapter is None or body != family.base:
            raise CampaignError(
                f"merges LoRA adapters on the base only, {name} is a full model; leave it out, or the expert",
                field=f"space.parameters.{CORE_SPACE}",
            )


def check_range(key: str, value: config.Searched, spec: Parameter, field: str) -> None:
    """Check the value or range of a parameter against its bounds.

    Args:
        key: The parameter.
        value: What the campaign gives it.
        spec: What it may be.
        field: Where it stands in the campaign.

    Raises:
        CampaignError: It is out of bounds or of another kind, or a range of a boolean or a whole number.
    """
    if isinstance(value, config.Range):
        if spec.kind != "number":
            kind = "true or false" if spec.kind == "boolean" else "a whole number"
            raise CampaignError(f"{key} is {kind}, it has no range", field=field)
        ends = [("low", value.low), ("high", value.high)]
        if value.sum is not None:
            ends.append(("sum", value.sum))  # one expert may get all of it
        for expert, own in value.experts.items():
            place = f"experts.{expert}"
            if isinstance(own, config.Bounds):
                ends += [(f"{place}.low", own.low), (f"{place}.high", own.high)]
            else:
                ends.append((place, float(own)))
    elif isinstance(value, bool) != (spec.kind == "boolean"):
        expected = "true or false" if spec.kind == "boolean" else "a number"
        raise CampaignError(f"found {value}, expected {expected}", field=field)
    elif spec.kind == "integer" and not float(value).is_integer():
        raise CampaignError(f"found {value:g}, expected a whole number", field=field)
    else:
        ends = [("", float(value))]
    for name, end in ends:
        below = spec.low is not None and end < spec.low
        if below or (spec.high is not None and end > spec.high):
            low = "-inf" if spec.low is None else f"{spec.low:g}"
            high = "inf" if spec.high is None else f"{spec.high:g}"
            raise CampaignError(
                f"found {end:g}, expected {key} in [{low}, {high}]",
                field=f"{field}.{name}" if name else field,
            )
