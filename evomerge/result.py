"""What a campaign leaves: the winner, the leaderboard, every trial, each of which can be saved as a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge.candidate.trial import Entry
from evomerge.errors import ResultsError
from evomerge.merge.statistics import look_in
from evomerge.merge.user_methods import MethodFile, use
from evomerge.report.card import model_card
from evomerge.report.formats import render
from evomerge.report.images import plotly_figure
from evomerge.report.leaderboard import Leaderboard, leaderboard
from evomerge.report.material import Material
from evomerge.store import Store, StoredTrial, Winner

BEST = "best"


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

    def plot(self, name: str) -> Any:  # noqa: ANN401 - a plotly.graph_objects.Figure
        """Return a figure of the study, which needs the extra `plots`.

        Args:
            name: One of `evomerge.report.figures.FIGURES`, each of which is a method, too: `plot_history()`.

        Raises:
            UserError: An unknown name, or plotly is not installed.
            ResultsError: The study has no such figure, such as a front where one value is searched.
        """
        with Store.open(self.folder, write=False) as store:
            return plotly_figure(Material.of(store), name)

    def plot_leaderboard(self) -> Any:  # noqa: ANN401
        """Plot scores by task, with intervals; see `plot`."""
        return self.plot("leaderboard")

    def plot_history(self) -> Any:  # noqa: ANN401
        """Plot the best so far, against trials, item evaluations or seconds; see `plot`."""
        return self.plot("history")

    def plot_front(self) -> Any:  # noqa: ANN401
        """Plot the Pareto front; see `plot`."""
        return self.plot("front")

    def plot_coefficients(self) -> Any:  # noqa: ANN401
        """Plot the winner's numbers by expert, layers and component; see `plot`."""
        return self.plot("coefficients")

    def plot_rows(self) -> Any:  # noqa: ANN401
        """Plot how the winner's weights spread over the rows of tensors; see `plot`."""
        return self.plot("rows")

    def plot_members(self) -> Any:  # noqa: ANN401
        """Plot what the members of the winner do; see `plot`."""
        return self.plot("members")

    def plot_importances(self) -> Any:  # noqa: ANN401
        """Plot which of the searched numbers matter; see `plot`."""
        return self.plot("importances")

    def plot_timeline(self) -> Any:  # noqa: ANN401
        """Plot what the workers did when; see `plot`."""
        return self.plot("timeline")

    def plot_costs(self) -> Any:  # noqa: ANN401
        """Plot quality against what it takes to serve a model; see `plot`."""
        return self.plot("costs")

    def plot_gap(self) -> Any:  # noqa: ANN401
        """Plot the mean on search, select and holdout items; see `plot`."""
        return self.plot("gap")

    def __repr__(self) -> str:
        campaign = self.leaderboard.campaign
        best = "no winner yet" if self.winner is None else f"winner {self.winner.name}"
        return f"<Result {campaign.name}: {best}, {self.folder}>"

    def _repr_html_(self) -> str:
        """Return the leaderboard as a table, for notebooks."""
        return render(self.leaderboard, "html")


def materialise(
    results: Path,
    trial: str,
    out: Path,
    *,
    device: str = "cpu",
    dtype: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    **writing: Any,  # noqa: ANN401
) -> int | None:
    """Build and save the model of one trial, such as a member of a Pareto front.

    Args:
        results: The campaign's results folder.
        trial: Its number, or `best`: the winner.
        out: Folder of the model.
        device: Where to compute.
        dtype: Of the file; None: the campaign's.
        trust_remote_code: Let models run their code even where the campaign does not.
        allow_pickle: Accept PyTorch pickles even where the campaign does not.
        writing: `shard_bytes`, `display` as of `merge.saving.save`.

    Returns:
        The trial's number; None of a winner that is no trial.

    Raises:
        ResultsError: The folder holds no campaign or no such trial, no winner is chosen yet, or `out` exists.
        MergeError: The maths has no answer, or the disk does not take the result.
    """
    from evomerge.kinds import kind_of

    with Store.open(results, write=False) as store:
        chosen = entry(store, trial)
        board = leaderboard(store, chosen.number)
        card = model_card(store, board, board.row(chosen.entry.key))
        models = store.campaign.models
    kind_of(chosen.candidate).save(
        chosen.candidate,
        out,
        device=device,
        dtype=dtype,
        card=card,
        trust_remote_code=trust_remote_code or models.trust_remote_code,
        allow_pickle=allow_pickle or models.allow_pickle,
        **writing,
    )
    return chosen.number


def entry(store: Store, trial: str) -> StoredTrial | Winner:
    """Return the trial of that number, or the winner: `best`; it can be merged then. Raises ResultsError."""
    use(MethodFile.of(store.campaign, store.folder))
    look_in(store.folder)
    trials = store.trials()
    if trial == BEST:
        if store.winner is None:
            raise ResultsError("no winner was chosen yet; give a trial's number", file=store.folder)
        return store.winner
    for one in trials:
        if trial == str(one.number):
            return one
    known = f"0 to {len(trials) - 1}" if trials else "none yet"
    raise ResultsError(
        f'found "{trial}", expected {BEST} or the number of a trial ({known})',
        file=store.folder,
        field="--trial",
    )
