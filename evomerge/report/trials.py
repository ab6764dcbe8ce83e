"""All trials of a campaign, and one trial with the numbers of its recipe."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from evomerge.candidate import Conditional, Recipe, Setting
from evomerge.config.model_names import short_name
from evomerge.errors import ResultsError
from evomerge.report.listing import Cell, listing
from evomerge.store import Store, StoredTrial

PARAMS = "params_"


def list_trials(store: Store, format: str = "table") -> str:
    """Write every trial, in the order of their numbers.

    Args:
        store: Of the campaign.
        format: `table` and `markdown` leave out the searched numbers; `json` and `csv` hold everything.

    Raises:
        UserError: An unknown format.
    """
    rows = [trial.to_row() for trial in store.trials()]
    if format in ("table", "markdown"):
        left_out = ("merge_seconds", "score_seconds")
        rows = [
            {
                name: value
                for name, value in row.items()
                if not name.startswith(PARAMS) and name not in left_out and value is not None
            }
            for row in rows
        ]
    return listing(rows, format)


def show_trial(store: Store, number: int, format: str = "table") -> str:
    """Write one trial: what it scored, and every number of its recipe.

    Args:
        store: Of the campaign.
        number: Of the trial.
        format: `table`, `markdown`, `json`; or `csv`, which holds the recipe's numbers only.

    Raises:
        ResultsError: There is no such trial.
        UserError: An unknown format.
    """
    trial = _found(store, number)
    row, numbers = trial.to_row(), recipe_numbers(trial.candidate)
    if format == "json":
        data = {**row, "recipe": numbers}
        return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    if format == "csv":
        return listing(numbers, format)
    known = [
        {"": name, "value": value}
        for name, value in row.items()
        if value is not None and not name.startswith(PARAMS)
    ]
    return listing(known, format) + "\n" + listing(_wide(numbers), format)


def recipe_numbers(recipe: Recipe) -> list[dict[str, Cell]]:
    """Return every parameter of a recipe with the model, layers and tensors that it holds for.

    Models are called by the last part of their name, unless two would be called alike; `all` is what
    holds for every model, layer or tensor.
    """
    names = recipe.model_names()
    short = [short_name(name) for name in names]
    called = dict(zip(names, short if len(set(short)) == len(short) else names, strict=True))
    found: list[dict[str, Cell]] = []
    scopes: list[tuple[str, str, Mapping[str, Setting]]] = [("all", "all", recipe.parameters)]
    scopes += [(called[one.model], "all", one.parameters) for one in recipe.models]
    for part in recipe.slices:
        for source in part.sources:
            layers = "all" if source.layer_range is None else "{}-{}".format(*source.layer_range)
            scopes.append((called[source.model], layers, source.parameters))
        scopes.append(("all", layers, part.parameters))
    for model, layers, parameters in scopes:
        for name, setting in parameters.items():
            for tensors, value in _values(setting):
                found.append(
                    {
                        "model": model,
                        "layers": layers,
                        "tensors": tensors,
                        "parameter": name,
                        "value": value,
                    }
                )
    return found


def _values(setting: Setting) -> Iterator[tuple[str, Cell]]:
    if not isinstance(setting, tuple):
        yield "all", setting
        return
    named = [one for one in setting if isinstance(one, Conditional)]
    if not named:
        yield (
            "all",
            ", ".join(f"{one:g}" if isinstance(one, float) else str(one) for one in setting),
        )
    for one in named:
        tensors = (
            one.filter if one.filter not in (None, "*") else "all" if len(named) == 1 else "rest"
        )
        shown = one.value
        yield str(tensors), ", ".join(map(str, shown)) if isinstance(shown, tuple) else shown


def _wide(numbers: Sequence[Mapping[str, Cell]]) -> list[dict[str, Cell]]:
    """Put the parameters of one place beside each other."""
    rows: dict[tuple[Cell, ...], dict[str, Cell]] = {}
    for one in numbers:
        place = {key: one[key] for key in ("model", "layers", "tensors")}
        rows.setdefault(tuple(place.values()), place)[str(one["parameter"])] = one["value"]
    return list(rows.values())


def _found(store: Store, number: int) -> StoredTrial:
    trials = store.trials()
    for trial in trials:
        if trial.number == number:
            return trial
    known = f"0 to {len(trials) - 1}" if trials else "none yet"
    raise ResultsError(
        f"found {number}, expected the number of a trial ({known})",
        file=store.folder,
        field="--trial",
    )
