"""Statistics of the experts' activations, or other importances of their weights: one safetensors file.

`N/TENSOR` says how much the entries of a tensor of expert N count (from 0, the recipe's models without the
base): numbers of at least 0, of the tensor's shape, or `[1, columns]` or `[rows, 1]`. A campaign writes the
root mean square of what enters each column of a linear layer. `moment/N/TENSOR` is the mean of x xT over
those vectors x, `[columns, columns]`, for methods that read it; `merged/N/TENSOR` the same of what enters it
where the layers before are merged. A recipe whose experts stand at other places names them: `FILE#0,2`.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from evomerge.candidate import Recipe
from evomerge.candidate.mergekit_yaml import statistics_files
from evomerge.candidate.moe_recipe import MoeRecipe
from evomerge.candidate.recipe import STATISTICS, split_places
from evomerge.candidate.tables import Array
from evomerge.errors import MergeError, RecipeError
from evomerge.merge.checkpoint import Checkpoint

MOMENT, MERGED = "moment/", "merged/"
GROWN = "grown"
"""Metadata of a file to which experts were added that joined a campaign."""
_KEY = re.compile(rf"({MOMENT}|{MERGED})?(\d+)/(.+)")


class Statistics:
    """An open file; tensors are read when they are asked for.

    Attributes:
        key: Tells it from other files, and from what it was before.

    Args:
        path: Of the file.
        places: Of the recipe's experts there; none: 0, 1, …

    Raises:
        RecipeError: It is missing or damaged, or holds something else.
    """

    def __init__(self, path: Path, places: tuple[int, ...] = ()) -> None:
        self._path, self._places = path, places
        try:
            state = path.stat()
            self.key: Hashable = (str(path), state.st_mtime_ns, state.st_size, places)
            opened: Any = safe_open(path, framework="pt")
        except FileNotFoundError:
            raise self._error(
                "no such file; expected the statistics that the method reads"
            ) from None
        except (OSError, SafetensorError) as error:
            raise self._error(f"not a safetensors file ({error})") from None
        self._file = opened
        self._grown = bool(places) or GROWN in (opened.metadata() or {})
        names: list[str] = list(opened.keys())
        self._shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in names}
        for name in self._shapes:
            if _KEY.fullmatch(name) is None:
                expected = "N/TENSOR, N the place of an expert in the recipe, from 0"
                raise self._error(f"found the tensor {name}, expected {expected}")
            self._check_values(name)

    def importance(self, expert: int, tensor: str) -> torch.Tensor | None:
        """Return what multiplies a tensor's magnitudes, as it is stored; None: nothing is known of it."""
        found = self._tensor(f"{self._place(expert)}/{tensor}")
        if found is None and (moment := self.moment(expert, tensor)) is not None:
            found = moment.diagonal().clamp(min=0).sqrt()[None]
        return found

    def moment(self, expert: int, tensor: str, *, merged: bool = False) -> torch.Tensor | None:
        """Return the mean of x xT over what entered a linear layer; None: it is not known.

        Args:
            expert: Its place in the recipe.
            tensor: The layer's.
            merged: Where the layers before are merged.
        """
        return self._tensor(f"{MERGED if merged else MOMENT}{self._place(expert)}/{tensor}")

    @property
    def holds(self) -> frozenset[int]:
        """The places of the experts that it has something of."""
        return frozenset(self._parts(key)[1] for key in self._shapes)

    def check(self, experts: Sequence[str], checkpoints: Mapping[str, Checkpoint]) -> None:
        """Check that it is of these experts, and that its shapes are those of their tensors.

        Raises:
            RecipeError: It is not; expert and tensor are named.
        """
        known: set[int] = set()
        if self._places and len(self._places) != len(experts):
            raise self._error(
                f"found places of {len(self._places)} experts, the recipe has {len(experts)}"
            )
        places = {self._place(expert): expert for expert in range(len(experts))}
        for key, shape in self._shapes.items():
            moment, place, tensor = self._parts(key)
            expert = places.get(place, place)
            if place not in places and self._grown:
                continue  # of an expert that is not in this merge
            known.add(expert)
            if place not in places:
                raise self._error(
                    f"holds {key}, of expert {expert}, the recipe has {len(experts)} experts, from 0"
                )
            header = checkpoints[experts[expert]].tensors.get(tensor)
            if header is None:
                raise self._error(f"holds {key}, which is not a tensor of {experts[expert]}")
            fit = _fitting(header.shape, moment)
            if shape not in fit:
                expected = (
                    " or ".join(map(str, map(list, dict.fromkeys(fit)))) or "none of a vector"
                )
                raise self._error(f"{key} has the shape {list(shape)}, expected {expected}")
        for place, model in enumerate(experts):
            if place not in known:
                raise self._error(f"holds nothing of {model}, expert {place} of the recipe")

    def _place(self, expert: int) -> int:
        return self._places[expert] if self._places else expert

    def _tensor(self, key: str) -> torch.Tensor | None:
        if key not in self._shapes:
            return None
        tensor: torch.Tensor = self._file.get_tensor(key)
        return tensor

    def _check_values(self, key: str) -> None:
        values = self._file.get_tensor(key)
        if not values.is_floating_point() or not bool(torch.isfinite(values).all()):
            raise self._error(
                f"{key} holds NaN or infinity, or whole numbers; expected finite numbers"
            )
        if not key.startswith((MOMENT, MERGED)) and bool((values < 0).any()):
            raise self._error(
                f"{key} holds {float(values.min()):g}, expected numbers of at least 0"
            )

    def _parts(self, key: str) -> tuple[bool, int, str]:
        found = _KEY.fullmatch(key)
        assert found is not None  # checked when it was opened
        return found[1] is not None, int(found[2]), found[3]

    def _error(self, message: str) -> RecipeError:
        return RecipeError(f"{self._path}: {message}", field="statistics")


def _fitting(shape: tuple[int, ...], moment: bool) -> list[tuple[int, ...]]:
    if len(shape) != 2:
        return [] if moment else [shape]
    rows, columns = shape
    return [(columns, columns)] if moment else [shape, (1, columns), (rows, 1)]


class _Place:
    """Where a campaign's own file is looked up, which its candidates name without a folder."""

    folder = Path()


def look_in(folder: str | Path | None) -> None:
    """Let this process look up the file of a campaign's candidates in its results folder; None: here."""
    _Place.folder = Path(folder or "")


def statistics_path(name: str) -> Path:
    """Return where a statistics file lies that a recipe or a candidate names."""
    file, _ = split_places(name)
    return _Place.folder / file if file == STATISTICS else Path(file)


def write_statistics(path: Path, experts: Sequence[Sequence[Mapping[str, Array]]]) -> None:
    """Write a file, aside first.

    Args:
        path: Of the file.
        experts: Of each, importances by tensor, second moments, and those in a merge; later ones may lack.

    Raises:
        MergeError: The disk does not take it.
    """
    tensors: dict[str, Array] = {}
    for place, own in enumerate(experts):
        tensors |= _named(place, own)
    _write(path, tensors)


def add_statistics(
    path: Path,
    place: int,
    importances: Mapping[str, Array],
    moments: Mapping[str, Array],
    ready: Callable[[Path], object],
) -> None:
    """Add an expert's to a file, aside first; merges that do not read it may then leave it unread.

    Args:
        path: Of the file.
        place: Of the expert in it.
        importances: By tensor.
        moments: By tensor.
        ready: Called with the finished file before it takes the old one's place.

    Raises:
        MergeError: The disk does not take it.
    """
    tensors = load_file(path) | _named(place, (importances, moments))
    _write(path, tensors, {GROWN: "true"}, ready)


def _named(place: int, own: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    kinds = zip(("", MOMENT, MERGED), own, strict=False)
    return {f"{kind}{place}/{name}": t for kind, each in kinds for name, t in each.items()}


def _write(
    path: Path,
    tensors: Mapping[str, Array],
    metadata: dict[str, str] | None = None,
    ready: Callable[[Path], object] = lambda _: None,
) -> None:
    aside = path.with_name(f".{path.name}.new")
    try:
        ordered = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
        save_file(ordered, aside, metadata)
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        ready(aside)
        aside.replace(path)
    except (OSError, SafetensorError) as error:
        raise MergeError(f"{path} cannot be written: {error}") from None


def copy_statistics(
    recipe: Recipe | MoeRecipe, folder: Path, merges: Mapping[str, Recipe] = MappingProxyType({})
) -> None:
    """Copy the files of statistics that a recipe and its merges name into a folder, beside the recipe."""
    for name, beside in statistics_files(recipe, merges).items():
        shutil.copyfile(statistics_path(str(name)), folder / split_places(beside)[0])


def open_statistics(name: str) -> Statistics:
    """Open a file that a recipe or a candidate names; it is read and checked once as long as it is the same.

    Raises:
        RecipeError: It is missing or damaged, or holds something else.
    """
    path = statistics_path(name)
    state = path.stat() if path.is_file() else None
    key = None if state is None else (state.st_mtime_ns, state.st_size)
    return _opened(path, split_places(name)[1], key)


def forget_statistics() -> None:
    """Close the files that are held open."""
    _opened.cache_clear()


@lru_cache(maxsize=4)
def _opened(path: Path, places: tuple[int, ...], _state: Hashable) -> Statistics:
    return Statistics(path, places)
