"""Files beside saved models that name the kind of their candidate, as an ensemble's does."""

from __future__ import annotations

import json
from pathlib import Path

import xxhash

from evomerge import yaml_file
from evomerge.candidate import Candidate
from evomerge.errors import RecipeError
from evomerge.kinds import KINDS, read


def load(path: Path) -> Candidate | None:
    """Return the candidate of such a file; None: the file is one of mergekit's.

    The arrays that it names are looked for beside it, and in the folders of `members`.

    Raises:
        RecipeError: It is no YAML file, or not of its kind's form, or an array is gone.
    """
    documents = yaml_file.read_all(path, RecipeError)
    data = documents[0].data
    if len(documents) > 1 or data.get("kind") not in KINDS:
        return None
    arrays = _arrays(path.parent)
    try:
        return read(json.dumps(data), lambda digest: arrays[digest].read_bytes())
    except RecipeError as error:
        raise RecipeError(error.message, file=path, field=error.field) from None
    except KeyError as error:
        missing = f"{error.args[0]}, a field, or an array beside it, is missing"
        raise RecipeError(missing, file=path) from None
    except (TypeError, ValueError) as error:
        raise RecipeError(f"not a file of the kind {data['kind']}: {error}", file=path) from None


def _arrays(folder: Path) -> dict[str, Path]:
    """Return digest → file of what candidates learn, which is small, in a folder and its members'."""
    places = [folder, *sorted((folder / "members").glob("*"))]
    files = (file for place in places for file in place.glob("*.safetensors"))
    small = (file for file in files if not file.name.startswith(("model", "adapter_model")))
    return {xxhash.xxh3_128_hexdigest(file.read_bytes()): file for file in small}
