"""Candidates of the kind `mixture`: feed-forward blocks of several models behind gates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge import config
from evomerge.candidate import Arrays, Mixture, MoeRecipe, no_arrays
from evomerge.candidate.ablation import Ablation, Ablations
from evomerge.candidate.moe_recipe import MoeExpert
from evomerge.config.faults import at_field
from evomerge.errors import CampaignError, MergeError, RecipeError, nearest
from evomerge.kinds.kind import Builder, ItemPrompts, Kind
from evomerge.kinds.members import axes_of, members_of
from evomerge.kinds.merge import MergeKind, check_range
from evomerge.merge.methods import METHODS, Parameter

if TYPE_CHECKING:
    from torch import nn

    from evomerge.candidate.trial import Values
    from evomerge.merge.checkpoint import Checkpoint
    from evomerge.merge.live import LiveModel
    from evomerge.space import Family
    from evomerge.space.mixture import MixtureSpace

TOP_K, TEMPERATURE, SHARE = "top_k", "temperature", "share"
BASE, BEST, AVERAGE = "base", "best", "average"
NAMED = (BASE, BEST, AVERAGE)
"""What `shared` may be besides a merge method."""
PARAMETERS: Mapping[str, Parameter] = {
    TOP_K: Parameter("number", "Experts that a token passes through: a whole number.", low=1),
    TEMPERATURE: Parameter(
        "number",
        "Of the softmax over the experts; of no effect with one expert a token.",
        low=1e-3,
    ),
    SHARE: Parameter(
        "number",
        "Part that the shared model's own feed-forward block has beside the experts' (Qwen2-MoE); 0: none.",
        low=0.0,
        high=1.0,
    ),
}
_USUAL: Mapping[str, config.Range | float] = {
    TOP_K: config.Range(low=1, high=2),
    TEMPERATURE: config.Range(low=0.05, high=1.0, log=True),
    SHARE: 0.0,
}
"""Parameter → where it is searched, or its value, where the campaign says nothing."""


class MixtureKind(Kind):
    """Mixtures of experts, of the classes that transformers and vLLM have."""

    keys = frozenset({"members", "shared", "parameters", "layers", "components"})
    parameters = PARAMETERS

    def check(self, settings: config.SpaceSettings) -> None:
        """Check parameters and what is shared. Raises CampaignError."""
        known = {*PARAMETERS, *_taken(settings)}
        for name, value in settings.parameters.items():
            if name not in known:
                raise CampaignError(
                    f'unknown parameter "{name}" of mixtures; {nearest(name, known)}',
                    field=f"space.parameters.{name}",
                )
            if name in PARAMETERS:
                _check_own(name, value, f"space.parameters.{name}")
        if settings.shared in NAMED:
            for key in ("layers", "components"):
                if key in settings.model_fields_set:
                    raise CampaignError(
                        f"groups the parameters of a merge method, and {settings.shared} has none; leave it "
                        "out, or name a method as shared",
                        field=f"space.{key}",
                    )
        elif settings.shared not in METHODS:
            raise CampaignError(
                f'found "{settings.shared}", expected {BEST}, {BASE}, {AVERAGE} or a merge method; '
                f"{nearest(settings.shared, METHODS)}",
                field="space.shared",
            )
        else:
            MergeKind().check(_of_shared(settings))

    def space(self, settings: config.SpaceSettings, family: Family, seed: int) -> MixtureSpace:
        """Lay out its own dimensions, and those of the merge that the experts share."""
        from evomerge.space.mixture import MixtureSpace

        if family.vocabulary is not None:
            raise CampaignError(
                "a mixture needs models of one vocabulary, and here tokens are matched; leave it out",
                field="models.tokenizer",
            )
        own = {name: settings.parameters.get(name, value) for name, value in _USUAL.items()}
        members = members_of(settings, family, tuple(family.experts))
        top_k = own[TOP_K]
        most = top_k.high if isinstance(top_k, config.Range) else top_k
        if most > len(members):
            if TOP_K in settings.parameters:
                raise CampaignError(
                    f"found {most:g} experts a token, expected at most {len(members)}, as many as there "
                    "are members",
                    field=f"space.parameters.{TOP_K}",
                )
            own[TOP_K] = len(members)
        shared = settings.shared
        if shared in NAMED:
            return MixtureSpace(family, members, own, shared)
        merges = MergeKind().space(_of_shared(settings), family, seed)
        return MixtureSpace(family, members, own, merges)

    def check_base(self, settings: config.SpaceSettings, base: Checkpoint) -> None:
        """Check that the models' architecture has a class of mixtures. Raises ModelError."""
        from evomerge.combine.assembly import Assembly

        expert = MoeExpert(base.name)
        has_share = settings.parameters.get(SHARE, _USUAL[SHARE]) != 0
        shared = expert if has_share else None
        with at_field("space.kind"):
            Assembly.of(MoeRecipe(base.name, (expert,), shared, experts_per_token=1), base)

    def read(self, data: Mapping[str, Any], arrays: Arrays = no_arrays) -> Mixture:
        """Return the mixture of the fields of its text."""
        return Mixture.read(data, arrays)

    def opened(self, live: LiveModel, prompts: ItemPrompts | None = None) -> Builder:
        """Return what writes mixtures into one module, and fits their gates to the prompts."""
        return _Builder(live, prompts)

    def ablations(self, candidate: Mixture, checkpoints: Mapping[str, Checkpoint]) -> Ablations:
        """Let each expert leave the gates."""
        left = {name: candidate.without(name) for name in candidate.experts}
        found = tuple(Ablation(one, name) for name, one in left.items() if one is not None)
        notes = ["No group of layers is left out of a mixture."]
        if not found:
            return Ablations(
                notes=("The mixture has one expert, and no other could take its place.",)
            )
        how = (
            "An expert's feed-forward blocks are left out, and their rows of the gates, so that tokens go to "
            "the others; what the experts share stays as it is."
        )
        return Ablations(how, found, notes=tuple(notes))

    def save(self, candidate: Mixture, out: Path | str, **options: Any) -> None:  # noqa: ANN401
        """Write a folder that transformers and vLLM load."""
        from evomerge.combine.mixture import save_mixture

        recipe, merges = candidate.recipe()
        if recipe.gates is None:
            raise RecipeError("this mixture has no gates yet; save one that a campaign has scored")
        save_mixture(recipe, out, merges=merges, **options)


class _Builder(Builder):
    def __init__(self, live: LiveModel, prompts: ItemPrompts | None) -> None:
        from evomerge.combine.mixture import ResidentMixtures

        self._mixtures, self._prompts = ResidentMixtures(live), prompts

    def fitted(self, candidate: Mixture, known: Mapping[str, Values]) -> Mixture:
        from evomerge.combine.lessons import fitted

        if self._prompts is None:
            raise MergeError("gates learn from the items' prompts, and there are none here")
        return fitted(candidate, self._mixtures, self._prompts.tokens("search"), known)

    def build(self, candidate: Mixture) -> nn.Module:
        return self._mixtures.write(*candidate.recipe())


def _check_own(name: str, value: config.Searched, field: str) -> None:
    """Check a parameter that the mixture has once."""
    if isinstance(value, bool):
        raise CampaignError(f"found {value}, expected a number or a range", field=field)
    check_range(name, value, PARAMETERS[name], field)
    ends = {field: float(value)} if not isinstance(value, config.Range) else {}
    if isinstance(value, config.Range):
        for key in axes_of(value):
            raise CampaignError(
                f"{name} is one number for the whole mixture; leave {key} out",
                field=f"{field}.{key}",
            )
        ends = {f"{field}.low": value.low, f"{field}.high": value.high}
    for where, number in ends.items():
        if name == TOP_K and number != int(number):
            raise CampaignError(f"found {number:g}, expected a whole number", field=where)


def _taken(settings: config.SpaceSettings) -> Iterable[str]:
    """Return the parameters of the merge method that makes the shared part."""
    return METHODS[settings.shared].parameters if settings.shared in METHODS else ()


def _of_shared(settings: config.SpaceSettings) -> config.SpaceSettings:
    """Return the space of the merges that make the shared part."""
    parameters = {name: v for name, v in settings.parameters.items() if name not in PARAMETERS}
    return config.SpaceSettings(
        method=(settings.shared,),
        layers=settings.layers,
        components=settings.components,
        parameters=parameters,
    )
