"""Candidates of the kind `ensemble`: members that answer apart, by a router, or together, mixed."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from evomerge import config
from evomerge.candidate import Arrays, no_arrays
from evomerge.candidate.ablation import Ablation, Ablations
from evomerge.candidate.ensemble import Ensemble
from evomerge.errors import CampaignError, MergeError, nearest
from evomerge.kinds.kind import Assignment, Builder, ItemPrompts, Kind
from evomerge.kinds.members import axes_of, members_of
from evomerge.merge.methods import Parameter

if TYPE_CHECKING:
    from torch import nn

    from evomerge.candidate.trial import Split, Values
    from evomerge.merge.checkpoint import Checkpoint
    from evomerge.merge.live import LiveModel
    from evomerge.space import Family
    from evomerge.space.ensemble import EnsembleSpace

PARAMETERS: Mapping[str, dict[str, Parameter]] = {
    "router": {
        "layer": Parameter(
            "number", "Whose hidden state of the base the router reads: a whole number.", low=0.0
        ),
        "margin": Parameter(
            "number",
            "Gains over the best merge that are too small to leave it, in errors.",
            low=0.0,
        ),
    },
    "mix": {
        "weight": Parameter("number", "Of each member.", low=0.0),
        "top_k": Parameter("number", "Members that are mixed: a whole number.", low=1.0),
        "temperature": Parameter("number", "Of what is mixed.", low=1e-3),
    },
}
"""Combiner → its parameters."""


MARGIN_STEP = 0.05
"""Margins that differ by less give hardly another answer."""


class EnsembleKind(Kind):
    """Several models of which a router chooses one for each prompt, or whose distributions are mixed."""

    keys = frozenset({"members", "combiner", "over", "parameters"})
    own_form = True
    parameters = MappingProxyType(PARAMETERS["router"] | PARAMETERS["mix"])

    def check(self, settings: config.SpaceSettings) -> None:
        """Check the parameters of the combiner. Raises CampaignError."""
        if settings.combiner == "router" and "over" in settings.model_fields_set:
            raise CampaignError(
                "over is of a mix, and the combiner is a router", field="space.over"
            )
        known = PARAMETERS[settings.combiner]
        for name, value in settings.parameters.items():
            field = f"space.parameters.{name}"
            if name not in known:
                raise CampaignError(
                    f'unknown parameter "{name}" of a {settings.combiner}; {nearest(name, known)}',
                    field=field,
                )
            _check(name, value, known[name].low or 0.0, field)

    def space(self, settings: config.SpaceSettings, family: Family, seed: int) -> EnsembleSpace:
        """Lay out the numbers of the combiner."""
        from evomerge.space.baselines import BASE, BEST
        from evomerge.space.ensemble import EnsembleSpace

        members = members_of(settings, family, (BASE, *family.experts, BEST))
        for name, largest in {"layer": family.num_layers, "top_k": len(members)}.items():
            if name in settings.parameters:
                _check_most(name, settings.parameters[name], largest)
        return EnsembleSpace.build(settings, family, members)

    def read(self, data: Mapping[str, Any], arrays: Arrays = no_arrays) -> Ensemble:
        """Return the ensemble of the fields of its text."""
        return Ensemble.read(data, arrays)

    def opened(self, live: LiveModel, prompts: ItemPrompts | None = None) -> Builder:
        """Return what fits routers, and mixes members, on a worker."""
        return _Builder(live, prompts)

    def content(self, candidate: Ensemble, checkpoints: Mapping[str, Checkpoint]) -> Hashable:
        """Return what is equal for ensembles that answer alike: margins that are nearly the same are one."""
        if candidate.router is None:
            return candidate.text()
        margin = round(candidate.router.margin / MARGIN_STEP) * MARGIN_STEP
        return replace(candidate, router=replace(candidate.router, margin=margin)).text()

    def ablations(self, candidate: Ensemble, checkpoints: Mapping[str, Checkpoint]) -> Ablations:
        """Let each member leave, while the others answer."""
        left = {name: candidate.without(name) for name in candidate.members}
        found = tuple(Ablation(one, name) for name, one in left.items() if one is not None)
        note = "Of an ensemble, groups of layers cannot be left out."
        if not found:
            return Ablations(notes=("The ensemble has one member, and nobody else could answer.",))
        routed = "the router chooses among the others, by what it has learnt of them"
        mixed = "the others' weights are scaled to the sum 1"
        if candidate.mix is not None and candidate.mix.top_k < len(candidate.members):
            mixed = f"the next one takes its place among those that run, and {mixed}"
        how = mixed if candidate.router is None else routed
        return Ablations(f"A member is left out: {how}.", found, notes=(note,))

    def save(self, candidate: Ensemble, out: Path | str, **options: Any) -> None:  # noqa: ANN401
        """Write combiner, router and members as one folder."""
        from evomerge.combine.folder import save_ensemble

        save_ensemble(candidate, out, **options)


class _Builder(Builder):
    def __init__(self, live: LiveModel, prompts: ItemPrompts | None) -> None:
        from evomerge.combine.mixed import MixedMembers
        from evomerge.combine.routed import Routing

        self._routing = None if prompts is None else Routing(live, prompts.tokens)
        self._mixed = MixedMembers(live)

    def fitted(self, candidate: Ensemble, known: Mapping[str, Values]) -> Ensemble:
        if candidate.router is None:
            return candidate
        found: Ensemble = self._router().fitted(candidate, known)
        return found

    def parts(self, candidate: Ensemble, split: Split) -> Sequence[Assignment] | None:
        if candidate.router is None:
            return None
        answering = self._router().answering(candidate, split)
        return [Assignment(name, candidate.members[name], own) for name, own in answering.items()]

    def route(self, candidate: Ensemble, prompts: Sequence[Sequence[int]]) -> None:
        self._router().read(candidate, prompts)

    def build(self, candidate: Ensemble) -> nn.Module:
        if candidate.router is not None:
            raise MergeError("a routed ensemble is no one model: its members answer apart")
        module: nn.Module = self._mixed.build(candidate)
        return module

    def _router(self) -> Any:  # noqa: ANN401 - whose module is loaded late
        if self._routing is None:
            raise MergeError(
                "a routed ensemble needs the items' prompts, which only the resident scorer has"
            )
        return self._routing


def _check(name: str, value: config.Searched, least: float, field: str) -> None:
    if isinstance(value, bool):
        raise CampaignError(f"found {value}, expected a number or a range", field=field)
    if isinstance(value, config.Range):
        for key in axes_of(value):
            if key != "experts" or name != "weight":
                raise CampaignError(f"{key} is of merges", field=f"{field}.{key}")
        bounds = [own for own in value.experts.values() if isinstance(own, config.Bounds)]
        lows = [each.low for each in (value, *bounds)]
        lows += [float(own) for own in value.experts.values() if isinstance(own, int | float)]
        field += ".low"
    else:
        lows = [float(value)]
    if min(lows) < least:
        raise CampaignError(f"found {min(lows):g}, expected {least:g} or more", field=field)


def _check_most(name: str, value: config.Searched, largest: int) -> None:
    is_range = isinstance(value, config.Range)
    high = value.high if isinstance(value, config.Range) else float(value)
    if high > largest:
        what = "the members" if name == "top_k" else "the base's layers"
        raise CampaignError(
            f"found {high:g}, expected {largest} at most, the number of {what}",
            field=f"space.parameters.{name}" + ".high" * is_range,
        )
