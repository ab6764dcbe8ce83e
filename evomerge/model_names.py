"""How a campaign file names models: `zoo:NAME`, a Hub id, or a local folder."""

from __future__ import annotations

from pathlib import Path


def short_name(model: str) -> str:
    """Return the last part of a model's name, which reports call it by."""
    return model.removeprefix("zoo:").rstrip("/").split("/")[-1]


def anchored(model: str, folder: Path) -> str:
    """Make a local path absolute; a Hub id and a `zoo:` name stay as they are.

    Args:
        model: As the file names it.
        folder: What relative paths are taken from.
    """
    looks_local = model.startswith((".", "/", "~")) or (folder / model).exists()
    if model.startswith("zoo:") or not looks_local:
        return model
    return str((folder / Path(model).expanduser()).resolve())


def with_name(expert: object) -> object:
    """Give an expert that a file names by its model only, or without a name, its short name."""
    if isinstance(expert, str):
        return {"model": expert, "name": short_name(expert)}
    if not isinstance(expert, dict) or expert.get("name") is not None:
        return expert
    model = expert.get("model")
    return {**expert, "name": short_name(model)} if isinstance(model, str) else expert
