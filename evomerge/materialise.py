"""Any trial of a campaign as a model: the recipe that was scored, saved with its card like the winner."""

from __future__ import annotations

from pathlib import Path

from evomerge.errors import ResultsError
from evomerge.kinds import kind_of
from evomerge.report.card import model_card
from evomerge.report.leaderboard import leaderboard
from evomerge.store import Store, StoredTrial

BEST = "best"


def materialise(
    results: Path,
    trial: str,
    out: Path,
    *,
    device: str = "cpu",
    dtype: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
) -> int:
    """Build and save the model of one trial, such as a member of a Pareto front.

    Args:
        results: The campaign's results folder.
        trial: Its number, or `best`: the winner.
        out: Folder of the model.
        device: Where to compute.
        dtype: Of the file; None: the campaign's.
        trust_remote_code: Let models run their code even where the campaign does not.
        allow_pickle: Accept PyTorch pickles even where the campaign does not.

    Returns:
        The trial's number.

    Raises:
        ResultsError: The folder holds no campaign or no such trial, no winner is chosen yet, or `out` exists.
        MergeError: The maths has no answer, or the disk does not take the result.
    """
    with Store.open(results, write=False) as store:
        chosen = _chosen(store, trial)
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
    )
    return chosen.number


def _chosen(store: Store, trial: str) -> StoredTrial:
    trials = store.trials()
    wanted = trial
    if trial == BEST:
        if store.winner is None:
            raise ResultsError("no winner was chosen yet; give a trial's number", file=store.folder)
        wanted = str(store.winner.number)
    for one in trials:
        if wanted == str(one.number):
            return one
    known = f"0 to {len(trials) - 1}" if trials else "none yet"
    raise ResultsError(
        f'found "{trial}", expected {BEST} or the number of a trial ({known})',
        file=store.folder,
        field="--trial",
    )
