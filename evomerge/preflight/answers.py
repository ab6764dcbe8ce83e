"""Labels for prompts that have none: the greedy answers of their teachers, before a campaign begins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from evomerge.candidate.trial import SPLITS, row_key
from evomerge.candidate.writing import WriteJob, Written
from evomerge.config import ScorerSettings
from evomerge.config.faults import located
from evomerge.errors import CampaignStopped, TaskError
from evomerge.preflight.check import Preflight, with_answers
from evomerge.progress import Display, Pace
from evomerge.tasks import write_task
from evomerge.workers import Pool
from evomerge.workers.pool import in_turn

AT_ONCE = 64
"""Prompts that a worker is given together."""


def without_tasks(ready: Preflight) -> Preflight:
    """Return a campaign as the workers need it that only write: no items, and the resident scorer."""
    campaign = ready.campaign.model_copy(update={"scorer": ScorerSettings()})
    return replace(ready, campaign=campaign, requests=())


def answered(
    ready: Preflight, pool: Pool, display: Display, folder: Path, file: Path | None
) -> Preflight:
    """Let teachers answer the prompts that were drawn, and make tasks of them.

    Args:
        ready: The campaign, checked with stand-ins for answers.
        pool: Workers for `without_tasks`.
        display: Shows progress.
        folder: Where the tasks are written.
        file: Of the campaign, for error messages.

    Returns:
        The campaign with the teachers' answers as gold answers.

    Raises:
        CampaignStopped: A teacher cannot answer, or answers nothing at all.
        UserError: What is asked of the items cannot be had with these answers.
    """
    jobs = list(_jobs(ready))
    pace = Pace(display, "answers of the teachers", len(jobs))
    answers: dict[str, dict[str, str]] = {each.task: {} for each in ready.prompts}
    for work, found in in_turn(pool, [job for _, job in jobs]):
        assert isinstance(work, WriteJob)
        assert isinstance(found, Written)
        if found.failure is not None:
            raise CampaignStopped(f"{work.name}: {found.failure.reason}")
        (task,) = {task for task, job in jobs if job.name == work.name}
        answers[task].update(zip(work.prompts, found.texts, strict=True))
        pace.step()
    with located(file):
        _check(ready, answers)
    for prompts in ready.prompts:
        write_task(folder, prompts, answers[prompts.task])
    return with_answers(ready, folder, file)


def _check(ready: Preflight, answers: Mapping[str, Mapping[str, str]]) -> None:
    for position, goal in enumerate(ready.campaign.objectives):
        texts = answers.get(goal.task)
        if texts is not None and not any(map(str.strip, texts.values())):
            raise TaskError(
                f'"{goal.teacher}" answers none of the {len(texts)} prompts: every answer is empty; name '
                "another teacher, or look at the prompts",
                field=f"objectives.{position}.teacher",
            )


def _jobs(ready: Preflight) -> Iterator[tuple[str, WriteJob]]:
    """Yield what the teachers are asked, each with the task that it is for."""
    teachers = {row.key: row.candidate for row in ready.space.baselines()}
    names = {goal.task: str(goal.teacher) for goal in ready.campaign.objectives}
    for prompts in ready.prompts:
        teacher = names[prompts.task]
        drawn = [
            document["prompt"]
            for split in SPLITS
            for leaf in ready.items.leaves(prompts.task, split)
            for document in leaf.docs
        ]
        for start in range(0, len(drawn), AT_ONCE):
            yield (
                prompts.task,
                WriteJob(
                    f'the answers of "{teacher}" to "{prompts.task}"',
                    teachers[row_key("expert", teacher)],
                    tuple(drawn[start : start + AT_ONCE]),
                    prompts.max_tokens,
                    prompts.until,
                ),
            )
