"""A short model card for a merge that was made without a campaign."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from evomerge.candidate import NEEDS_COEFFICIENTS, Recipe, dumps_all
from evomerge.merge.location import split_adapter
from evomerge.yaml_file import dump


def default_card(
    recipe: Recipe, name: str, merges: Mapping[str, Recipe] = MappingProxyType({})
) -> str:
    """Return a card that says what was merged and how, in the Hub's format.

    Args:
        recipe: What was merged.
        name: Of the folder.
        merges: Name → merge that it is made of.
    """
    parts = (recipe, *merges.values())
    found = dict.fromkeys(model for one in parts for model in one.model_names())
    models = [model for model in found if model not in merges]
    hub_names = [split_adapter(model)[0] for model in models]
    hub_names = [model for model in dict.fromkeys(hub_names) if not Path(model).exists()]
    front: dict[str, object] = {"library_name": "transformers", "tags": ["merge", "evomerge"]}
    if hub_names:
        front["base_model"] = hub_names
    listed = "\n".join(f"- `{model}`" for model in models if model != recipe.base_model)
    base = f" on the base `{recipe.base_model}`" if recipe.base_model else ""
    needed = f"\n{NEEDS_COEFFICIENTS}\n" if any(one.coefficients for one in parts) else ""
    return (
        f"---\n{dump(front)}---\n\n# {name}\n\n"
        f"A merge of language models by the method `{recipe.method}`{base}, made with evomerge.\n\n"
        f"{listed}\n\n## Recipe\n\n```yaml\n{dumps_all(recipe, merges)}```\n\n"
        f"`evomerge merge recipe.yaml OUT_DIR` builds the same weights again.\n{needed}"
    )
