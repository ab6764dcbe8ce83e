"""How files name models: `zoo:NAME`, a Hub id, a local folder, or `MODEL+ADAPTER`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

IsFolder = Callable[[str], bool]
_HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+)(?:@.*)?")


def is_folder(name: str) -> bool:
    """Tell whether a name is that of a folder here."""
    return Path(name).expanduser().is_dir()


def parts(model: str, is_folder: IsFolder = is_folder) -> tuple[str, ...]:
    """Split mergekit's `MODEL+ADAPTER`; a folder's own name may have a plus too.

    A name that is a folder is left whole. Of several places to split at that one counts where both sides
    are folders, else where one is. Where nothing is known of any of them, a single plus splits.

    Args:
        model: A name.
        is_folder: Tells whether a part is a folder.

    Returns:
        The model, or model and adapter.
    """
    if "+" not in model or is_folder(model):
        return (model,)
    places = [place for place, letter in enumerate(model) if letter == "+"]
    splits = [(model[:place], model[place + 1 :]) for place in places]
    splits = [split for split in splits if all(split)]
    known = {split: sum(map(is_folder, split)) for split in splits}
    best = [split for split in splits if known[split] == max(known.values())]
    if len(best) == 1 and (max(known.values()) or len(places) == 1):
        return best[0]
    return (model,)


def by_part(rename: Callable[[str], str], is_folder: IsFolder = is_folder) -> Callable[[str], str]:
    """Return a function that renames a model, or model and adapter each.

    Args:
        rename: Old name of a model or adapter → new name.
        is_folder: Tells whether a part is a folder.
    """
    return lambda model: "+".join(map(rename, parts(model, is_folder)))


def short_name(model: str) -> str:
    """Return the last part of a model's name, which reports call it by."""
    return model.removeprefix("zoo:").rstrip("/").split("/")[-1]


def model_labels(models: Sequence[str]) -> dict[str, str]:
    """Return what reports call models: the last part of their names, unless two would be called alike."""
    short = [short_name(model) for model in models]
    return dict(zip(models, short if len(set(short)) == len(short) else models, strict=True))


def anchored(model: str, folder: Path) -> str:
    """Make a local path absolute; a Hub id and a `zoo:` name stay as they are.

    Args:
        model: As the file names it.
        folder: What relative paths are taken from.
    """

    def is_there(part: str) -> bool:
        return (folder / Path(part).expanduser()).is_dir()

    def absolute(part: str) -> str:
        looks_local = part.startswith((".", "/", "~")) or (folder / part).exists()
        if part.startswith("zoo:") or not looks_local:
            return part
        return str((folder / Path(part).expanduser()).resolve())

    return by_part(absolute, is_there)(model)


def hub_ids(models: Iterable[str]) -> list[str]:
    """Return the Hub ids among models and adapters, without revisions, each once, in their order."""
    found = [part for model in models for part in parts(model) if not is_folder(part)]
    matches = (_HUB_ID.fullmatch(part) for part in found)
    return list(dict.fromkeys(match[1] for match in matches if match))
