"""Open a saved ensemble, make adapters of its members, let experts join or leave. Light as `campaigns`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.progress import Display, Style, shown_by
from evomerge.workers.imports import import_quickly

if TYPE_CHECKING:
    from evomerge.api.truncation import Truncation
    from evomerge.combine.loaded import LoadedEnsemble
    from evomerge.membership import MembershipChange


def add(
    folder: str | Path,
    expert: str,
    *,
    name: str | None = None,
    task: str | None = None,
    metric: str | None = None,
    display: Display | Style = "none",
) -> MembershipChange:
    """Let an expert join a finished campaign: score it, choose the winner again, save it.

    Args:
        folder: The results folder.
        expert: A folder, a Hub id, `zoo:NAME`, or a LoRA adapter.
        name: What reports call it; None: the last part of its name.
        task: A task that it brings: all members are scored on it, too, and it counts as an objective.
        metric: Of that task; None: as of the campaign's first objective.
        display: How progress is shown, as for `search`.

    Returns:
        The winner before and now, with their values.

    Raises:
        UserError: The folder holds no finished campaign, the expert does not fit, or the task is unknown.
    """
    with shown_by(display) as shown:
        change: MembershipChange = import_quickly("evomerge.membership").add(
            Path(folder), expert, name=name, task=task, metric=metric, display=shown
        )
    return change


def remove(
    folder: str | Path, expert: str, *, display: Display | Style = "none"
) -> MembershipChange:
    """Let an expert leave a finished campaign: choose the winner again without it, save it.

    Args:
        folder: The results folder.
        expert: Its name.
        display: How progress is shown, as for `search`.

    Returns:
        As of `add`.

    Raises:
        UserError: The folder holds no finished campaign, or the expert is none of it, or the last.
    """
    with shown_by(display) as shown:
        change: MembershipChange = import_quickly("evomerge.membership").remove(
            Path(folder), expert, display=shown
        )
    return change


def adapters(folder: str | Path, out: str | Path, *, rank: int, device: str = "cpu") -> Truncation:
    """Write a campaign's ensemble once more, with each full model as a LoRA adapter of the base.

    Args:
        folder: The results folder.
        out: The folder to write.
        rank: Of the adapters.
        device: Where everything is computed.

    Returns:
        What each member loses by it: the gold answers' loss on the select items, before and after.

    Raises:
        UserError: The winner is no routed ensemble, or none of its members is a full model.
    """
    found: Truncation = import_quickly("evomerge.api.truncation").adapters(
        Path(folder), Path(out), rank=rank, device=device
    )
    return found


def load(
    folder: str | Path,
    *,
    device: str = "cpu",
    dtype: str | None = None,
    trust_remote_code: bool = False,
) -> LoadedEnsemble:
    """Open a saved ensemble, so that it answers; a merge is opened by transformers.

    Args:
        folder: Of the ensemble, such as `results/NAME/best`.
        device: Where to run.
        dtype: Of the members; None: in which they were scored.
        trust_remote_code: Let the members run code of their own.

    Returns:
        What has `generate`: texts in, texts out; or tokens, as transformers has them.

    Raises:
        ModelError: The folder holds no ensemble, or a member is gone or was changed: it is named; or members
            have code of their own, which is not allowed.
        UserError: The device or dtype does not exist here.
    """
    found: LoadedEnsemble = import_quickly("evomerge.combine.loaded").load(
        folder, device=device, dtype=dtype, trust_remote_code=trust_remote_code
    )
    return found
