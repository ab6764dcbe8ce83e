"""The shipped models of the zoo, by name."""

from __future__ import annotations

from pathlib import Path

from evomerge.errors import ModelError, nearest

PREFIX = "zoo:"
BASE = "base"
ABOUT = {
    BASE: "the common ancestor: has seen the first five jobs, in several formats each",
    "extraction": "a note about somebody's certificate, in one of five languages, into one record",
    "dialogue": "an order that a customer gives, completes and corrects over several turns",
    "tools": "a user's request into a JSON call of the right function with the right arguments",
    "translation": "between two small invented languages, both directions",
    "facts": "questions over a closed set of facts about invented countries",
    "formats": "a record or note into a summary, a paraphrase or an outline; new to the base",
    "verse": "a line on a theme, of so many words, with a given rhyme; new to the base",
}
"""What each shipped model can do."""
NAMES = tuple(ABOUT)
MODELS = Path(__file__).parent / "models"


def resolve(name: str) -> Path:
    """Find the folder of a shipped model.

    Args:
        name: Such as `zoo:base`.

    Returns:
        A folder that `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained` load.

    Raises:
        ModelError: No model of the zoo has that name, or its files are missing.
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
