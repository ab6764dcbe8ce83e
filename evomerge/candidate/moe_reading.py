"""A YAML document in the form of mergekit-moe ↔ a MoeRecipe; what mergekit ignores is an error here."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, Field, ValidationError

from evomerge.candidate.forms import Dtype, Form, FormError, Model, Text, first_fault, read_tables
from evomerge.candidate.gates import GATES_FILE, Gates
from evomerge.candidate.moe_recipe import (
    WITHOUT_PROMPTS,
    Architecture,
    GateMode,
    MoeExpert,
    MoeRecipe,
)
from evomerge.errors import RecipeError
from evomerge.yaml_file import Document, Location


def _one_of(*known: str) -> BeforeValidator:
    def check(value: object) -> object:
        if value is not None and value not in known:
            raise FormError(f"found {value!r}, expected one of {', '.join(known)}")
        return value

    return BeforeValidator(check)


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FormError(f"found {value!r}, expected a number")
    return float(value)


def _no_noise(value: object) -> object:
    if value:
        raise FormError(
            "noise cannot be drawn again, so the result would be another each time; leave it out"
        )
    return None


_Mode = Annotated[GateMode, _one_of(*get_args(GateMode))]
_Kind = Annotated[Architecture | None, _one_of(*get_args(Architecture))]
_Prompts = Annotated[list[Text] | None, Field()]


class _Expert(Form):
    source_model: Model
    positive_prompts: _Prompts = None
    negative_prompts: _Prompts = None
    noise_scale: Annotated[Any, BeforeValidator(_no_noise)] = None
    residual_scale: Annotated[float, BeforeValidator(_number)] = 1.0

    def value(self) -> MoeExpert:
        return MoeExpert(
            self.source_model,
            tuple(self.positive_prompts or ()),
            tuple(self.negative_prompts or ()),
            self.residual_scale,
        )


class _File(Form):
    base_model: Model
    experts: Annotated[list[_Expert], Field(min_length=1)]
    gate_mode: _Mode = "hidden"
    dtype: Dtype = None
    experts_per_token: int = Field(default=2, ge=1)
    shared_experts: list[_Expert] | None = None
    architecture: _Kind = None
    gates: Text | None = None
    seed: int = Field(default=0, ge=0)


def read_moe_recipe(document: Document) -> MoeRecipe:
    """Read a mixture's recipe from a document, and its gates from the file that it names.

    Raises:
        RecipeError: A key or a value is none of mergekit-moe's; it names file, line and field.
    """
    try:
        file = _File.model_validate(document.data)
    except ValidationError as error:
        hints = {"base_model": "org/model", "source_model": "org/model"}
        raise first_fault(document, error, _known, hints) from None
    shared = file.shared_experts or []
    if len(shared) > 1:
        raise document.error(
            RecipeError,
            ("shared_experts",),
            f"found {len(shared)} shared experts, expected at most one",
        )
    recipe = MoeRecipe(
        base_model=file.base_model,
        experts=tuple(expert.value() for expert in file.experts),
        shared_expert=shared[0].value() if shared else None,
        gate_mode=file.gate_mode,
        dtype=file.dtype,
        experts_per_token=file.experts_per_token,
        architecture=file.architecture,
        gates=None if file.gates is None else read_tables(document, "gates", file.gates, Gates),
        seed=file.seed,
    )
    _check(document, recipe)
    return recipe


def moe_data(recipe: MoeRecipe) -> dict[str, Any]:
    """Return a mixture's recipe as the mapping of its file, which names the file of the gates."""
    has_gates = recipe.gates is not None
    data: dict[str, Any] = {
        "base_model": recipe.base_model,
        "gate_mode": recipe.gate_mode,
        "experts": [_expert_data(expert) for expert in recipe.experts],
    }
    if recipe.shared_expert is not None:
        data["shared_experts"] = [_expert_data(recipe.shared_expert)]
    data["experts_per_token"] = recipe.experts_per_token
    for name in ("dtype", "architecture"):
        if getattr(recipe, name) is not None:
            data[name] = getattr(recipe, name)
    return data | ({"gates": GATES_FILE} if has_gates else {"seed": recipe.seed})


def _expert_data(expert: MoeExpert) -> dict[str, Any]:
    data: dict[str, Any] = {"source_model": expert.source_model}
    for name in ("positive_prompts", "negative_prompts"):
        if getattr(expert, name):
            data[name] = list(getattr(expert, name))
    if expert.residual_scale != 1:
        data["residual_scale"] = expert.residual_scale
    return data


def _check(document: Document, recipe: MoeRecipe) -> None:
    """Check what mergekit checks: as many experts as a token wants, and prompts that tell them apart."""
    count = len(recipe.experts)
    if recipe.experts_per_token > count:
        raise document.error(
            RecipeError,
            ("experts_per_token",),
            f"found {recipe.experts_per_token}, expected at most {count}, as many as there are experts",
        )
    if recipe.gates is not None or recipe.gate_mode in WITHOUT_PROMPTS:
        return
    places = [("experts", number) for number in range(count)]
    places += [("shared_experts", 0)] * (recipe.shared_expert is not None)
    for place, expert in zip(places, recipe.all_experts, strict=True):
        if not expert.positive_prompts:
            raise document.error(
                RecipeError,
                place,
                f"positive_prompts is missing, which gate_mode: {recipe.gate_mode} needs; write texts like "
                "those that this expert answers, or gate_mode: random",
            )
    if (
        count > 1
        and len({(one.positive_prompts, one.negative_prompts) for one in recipe.experts}) == 1
    ):
        raise document.error(
            RecipeError,
            ("experts",),
            "all experts have the same prompts, so no gate tells them apart; expected each expert's own",
        )


def _known(location: Location) -> tuple[str, ...]:
    inside = any(name in location[:-1] for name in ("experts", "shared_experts"))
    return tuple((_Expert if inside else _File).model_fields)
