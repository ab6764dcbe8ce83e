"""All trials of a campaign, and one trial with the numbers of its candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evomerge.candidate import Candidate
from evomerge.config.model_names import model_labels
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
    """Return what formats write of one trial: its scores, and every number of its candidate (as records).

    Raises:
        ResultsError: No such trial.
    """
    trial = _found(store, number)
    row, found = trial.to_row(), numbers_of(trial.candidate)
    known = [
        {"": name, "value": value}
        for name, value in row.items()
        if value is not None and not name.startswith(PARAMS)
    ]
    return Report((words(known), words(_wide(found))), found, {**row, "recipe": found})


def numbers_of(candidate: Candidate) -> list[dict[str, Plain]]:
    """Return every number of a candidate and what it holds for.

    Models are called by the last part of their name, unless two would be called alike.
    """
    called = model_labels(candidate.model_names())
    rows = candidate.numbers()
    return [
        {key: called.get(str(cell), cell) if key == "model" else cell for key, cell in row.items()}
        for row in rows
    ]


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
