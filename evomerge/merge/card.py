"""A short model card for a merge that was made without a campaign."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from evomerge.candidate import NEEDS_COEFFICIENTS, Recipe, dumps_all
from evomerge.candidate.moe_recipe import MoeRecipe
from evomerge.candidate.recipe import NEEDS_STATISTICS
from evomerge.config.model_names import hub_ids
from evomerge.merge.methods import mergekit_lacks
from evomerge.merge.user_methods import remark
from evomerge.yaml_file import dump


def default_card(
    recipe: Recipe | MoeRecipe,
    name: str,
    merges: Mapping[str, Recipe] = MappingProxyType({}),
    adapter: tuple[str, str] | None = None,
) -> str:
    """Return a card that says what was merged and how, in the Hub's format.

    Args:
        recipe: What was merged.
        name: Of the folder.
        merges: Name → merge that it is made of.
        adapter: Of a merge that is an adapter: of which model, and what it has of the merge.
    """
    found = dict.fromkeys(
        model for one in (*merges.values(), recipe) for model in one.model_names()
    )
    models = [model for model in found if model not in merges]
    linked = hub_ids(models)
    front: dict[str, object] = {"library_name": "transformers", "tags": ["merge", "evomerge"]}
    if linked:
        front |= {"base_model": linked, "base_model_relation": "merge"}
    made = "builds the same weights again"
    if adapter is not None:
        front["library_name"] = "peft"
        if hub_ids([adapter[0]]):
            front |= {"base_model": adapter[0], "base_model_relation": "adapter"}
        made = "builds the same merge as a model"
    listed = "\n".join(f"- `{model}`" for model in models if model != recipe.base_model)
    merged = [*merges.values(), *([recipe] if isinstance(recipe, Recipe) else [])]
    needed = f"\n{NEEDS_COEFFICIENTS}\n" if any(one.coefficients for one in merged) else ""
    needed += f"\n{NEEDS_STATISTICS}\n" if any(one.statistics for one in merged) else ""
    names = [one.method for one in merged]
    scopes = [scope for one in merged for scope in one.scopes()]
    for said in (remark(names), mergekit_lacks(names, scopes)):
        needed += f"\n{said}\n" if said else ""
    gates = recipe.gates if isinstance(recipe, MoeRecipe) else None
    if gates is not None and gates.accuracy:
        needed += f"\n{gates.remark()}\n"
    if adapter is not None:
        needed += f"\nThis is it as a LoRA adapter of `{adapter[0]}`: {adapter[1]}\n"
    return (
        f"---\n{dump(front)}---\n\n# {name}\n\n"
        f"{_what(recipe)}, made with evomerge.\n\n"
        f"{listed}\n\n## Recipe\n\n```yaml\n{dumps_all(recipe, merges)}```\n\n"
        f"`evomerge merge recipe.yaml OUT_DIR` {made}.\n{needed}"
    )


def _what(recipe: Recipe | MoeRecipe) -> str:
    if isinstance(recipe, Recipe):
        base = f" on the base `{recipe.base_model}`" if recipe.base_model else ""
        return f"A merge of language models by the method `{recipe.method}`{base}"
    return (
        f"A mixture of {len(recipe.experts)} experts, of which a token passes through "
        f"{recipe.experts_per_token}: feed-forward blocks of several language models behind gates, "
        f"everything else from `{recipe.base_model}`"
    )
