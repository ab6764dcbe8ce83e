"""All trials of a campaign, and one trial with the numbers of its recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from evomerge.candidate import Conditional, Recipe, Setting
from evomerge.config.model_names import short_name
from evomerge.errors import ResultsError
from evomerge.report.grid import Plain, Report, short_names, words
from evomerge.store import Store, StoredTrial

PARAMS = "params_"
LEFT_OUT = ("merge_seconds", "score_seconds")


def trials_report(store: Store) -> Report:
    """Return what formats write of every trial; tables leave out the searched numbers."""
    rows = [trial.to_row() for trial in store.trials()]
    names = list(dict.fromkeys(name for row in rows for name in row if "/" in name))
    metrics = {name.partition("/")[2] for name in names}
    called = dict(zip(names, short_names(names), strict=True))
    if len(metrics) == 1:
        called = {name: short.partition("/")[0] for name, short in called.items()}
    shown = [
        {
            called.get(name, name): value
            for name, value in row.items()
            if not name.startswith(PARAMS) and name not in LEFT_OUT and value is not None
        }
        for row in rows
    ]
    return Report((words(shown),), rows, rows)


def trial_report(store: Store, number: int) -> Report:
    """Return what formats write of one trial: its scores, and every number of its recipe (as records).

    Raises:
        ResultsError: There is no such trial.
    """
    trial = _found(store, number)
    row, found = trial.to_row(), recipe_numbers(trial.candidate)
    known = [
        {"": name, "value": value}
        for name, value in row.items()
        if value is not None and not name.startswith(PARAMS)
    ]
    return Report((words(known), words(_wide(found))), found, {**row, "recipe": found})


def recipe_numbers(recipe: Recipe) -> list[dict[str, Plain]]:
    """Return every parameter of a recipe with the model, layers and tensors that it holds for.

    Models are called by the last part of their name, unless two would be called alike; `all` is what
    holds for every model, layer or tensor.
    """
    names = recipe.model_names()
    short = [short_name(name) for name in names]
    called = dict(zip(names, short if len(set(short)) == len(short) else names, strict=True))
    scopes: list[tuple[str, str, Mapping[str, Setting]]] = [("all", "all", recipe.parameters)]
    scopes += [(called[one.model], "all", one.parameters) for one in recipe.models]
    for part in recipe.slices:
        for source in part.sources:
            layers = "all" if source.layer_range is None else "{}-{}".format(*source.layer_range)
            scopes.append((called[source.model], layers, source.parameters))
        scopes.append(("all", layers, part.parameters))
    return [
        {"model": model, "layers": layers, "tensors": tensors, "parameter": name, "value": value}
        for model, layers, parameters in scopes
        for name, setting in parameters.items()
        for tensors, value in _values(setting)
    ]


def _values(setting: Setting) -> Iterator[tuple[str, Plain]]:
    """Yield the tensors that a number holds for, and the number."""
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
        rest = "all" if len(named) == 1 else "rest"
        tensors = rest if one.filter in (None, "*") else str(one.filter)
        shown = one.value
        yield tensors, ", ".join(map(str, shown)) if isinstance(shown, tuple) else shown


def _wide(found: Sequence[Mapping[str, Plain]]) -> list[dict[str, Plain]]:
    """Put the parameters of one place beside each other."""
    rows: dict[tuple[Plain, ...], dict[str, Plain]] = {}
    for one in found:
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
