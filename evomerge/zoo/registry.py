"""The shipped models of the zoo, by name."""

from __future__ import annotations

from pathlib import Path

from evomerge.errors import ModelError, nearest

PREFIX = "zoo:"
BASE = "base"
NAMES = (BASE, "extraction", "dialogue", "tools", "translation", "facts", "formats")
MODELS = Path(__file__).parent / "models"


def resolve(name: str) -> Path:
    """Find the folder of a shipped model.

    Args:
        name: Such as `zoo:base`.

    Returns:
        A folder that `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained` load.

    Raises:
        ModelError: The zoo has no model of that name, or its files are missing.
    """
    short = name.removeprefix(PREFIX)
    if short not in NAMES or short == name:
        known = [PREFIX + each for each in NAMES]
        raise ModelError(f"the zoo has no model {name!r}; {nearest(name, known)}")
    folder = MODELS / short
    if not (folder / "model.safetensors").is_file():
        raise ModelError(
            f"the files of {name} are missing; reinstall evomerge, or build them: "
            f"evomerge zoo build {MODELS}",
            file=folder,
        )
    return folder
