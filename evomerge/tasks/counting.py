"""How many documents tasks have, without building a single prompt."""

from __future__ import annotations

from collections.abc import Sequence

from evomerge.tasks.requested import TaskRequest
from evomerge.tasks.tasks import leaves, load_task


def document_counts(
    names: Sequence[str], *, tasks_path: str | None = None
) -> dict[str, tuple[int, ...]]:
    """Return task → documents that lm-eval scores; of a group one number a member.

    Args:
        names: Tasks and groups.
        tasks_path: A folder of task files, searched before lm-eval's own.

    Raises:
        TaskError: A task is unknown, broken, or has no data.
    """
    return {
        name: tuple(
            len(task.eval_docs)
            for task in leaves(load_task(TaskRequest(name), tasks_path=tasks_path))
        )
        for name in names
    }
