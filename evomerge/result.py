"""What a campaign leaves: the winner, the leaderboard, every trial."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge.candidate.trial import Entry
from evomerge.errors import ResultsError
from evomerge.report.formats import render
from evomerge.report.leaderboard import Leaderboard, leaderboard
from evomerge.store import Store


@dataclass(frozen=True, repr=False)
class Result:
    """What a campaign leaves in its results folder.

    Attributes:
        folder: The results folder; the merged model is in `folder/best`.
        leaderboard: Parents, baselines, finalists and the winner.
        winner: None as long as none was chosen.
    """

    folder: Path
    leaderboard: Leaderboard
    winner: Entry | None = None

    @classmethod
    def of(cls, store: Store) -> Result:
        """Read the result of an open store, finished or not."""
        winner = None if store.winner is None else store.winner.entry
        return cls(Path(store.folder), leaderboard(store), winner)

    @property
    def best(self) -> Entry:
        """The winner.

        Raises:
            ResultsError: None was chosen yet.
        """
        if self.winner is None:
            raise ResultsError(
                f"no winner was chosen yet; finish it with `evomerge resume {self.folder}`, or look at "
                "`leaderboard` and `to_pandas()`",
                file=self.folder,
            )
        return self.winner

    def to_pandas(self) -> Any:  # noqa: ANN401 - pandas need not be installed
        """Return all trials as a pandas DataFrame, one a row.

        Columns: `number`, `state`, `method`, `value` (several: `value_0`, …), `TASK/METRIC` on the search
        items, `seconds` and its parts, `failure`, and `params_NAME` for every searched number.
        """
        import pandas  # type: ignore[import-untyped]

        with Store.open(self.folder, write=False) as store:
            return pandas.DataFrame([trial.to_row() for trial in store.trials()])

    @property
    def study(self) -> Any:  # noqa: ANN401 - an optuna.Study
        """The Optuna study in `study.db`, with names of its values and every trial's scores by task."""
        with Store.open(self.folder, write=False) as store:
            return store.optuna_study()

    def __repr__(self) -> str:
        campaign = self.leaderboard.campaign
        best = "no winner yet" if self.winner is None else f"winner {self.winner.name}"
        return f"<Result {campaign.name}: {best}, {self.folder}>"

    def _repr_html_(self) -> str:
        """Return the leaderboard as a table, for notebooks."""
        return render(self.leaderboard, "html")
