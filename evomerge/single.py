"""One model: its scores on lm-eval tasks, or on the very items of a campaign."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from evomerge import config as campaign
from evomerge.candidate import Merge
from evomerge.candidate.trial import Split, TaskScores
from evomerge.config.destination import refuse_unwritable
from evomerge.errors import ModelError, ResultsError, UserError
from evomerge.kinds import kind_of
from evomerge.merge.checkpoint import open_checkpoint
from evomerge.merge.devices import torch_dtype, usable_device
from evomerge.merge.live import LiveModel
from evomerge.merge.location import locate
from evomerge.merge.tokenizer import load_tokenizer
from evomerge.preflight.check import split_plan
from evomerge.preflight.teachers import requests_of
from evomerge.scoring import MemberPart, Scored, Scorer, lm_eval_results, lm_eval_table
from evomerge.store import TASKS, Store
from evomerge.tasks import Items, PromptStyle, SplitPlan, TaskRequest, expand, load_items
from evomerge.tasks.metrics import TEACHER_DIVERGENCE

ADAPTER_CONFIG = "adapter_config.json"
WHOLE: Split = "holdout"
"""Without a campaign all items are one split; its name shows nowhere."""
BOOTSTRAP_ITERATIONS = 1000
"""lm-eval draws 100,000 for the standard errors of metrics such as perplexity, which takes minutes."""


_Metrics = Mapping[str, tuple[str, ...] | None]


@dataclass(frozen=True)
class ModelScores:
    """Scores of one model.

    Attributes:
        model: As the user named it.
        results: lm-eval's own result dictionary (`results`, `versions`, `n-shot`, …).
        scored: The same scores with the values of every item.
    """

    model: str
    results: dict[str, Any]
    scored: Scored


def score_on_tasks(
    model: str,
    tasks: Sequence[str],
    *,
    tasks_path: Path | None = None,
    num_fewshot: int | None = None,
    limit: int | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    allow_unsafe_code: bool = False,
) -> ModelScores:
    """Score a model as `lm_eval --model hf` does, every metric of every task; arguments as `evomerge.score`.

    Raises:
        UserError: The model or a task is wrong.
    """
    folder = None if tasks_path is None else str(tasks_path)
    names = expand(tasks, folder)
    subject = _subject(
        model,
        None,
        dtype=dtype,
        device=device,
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle,
    )
    items = load_items(
        [TaskRequest(task, num_fewshot) for task in names],
        tokenizer=subject.tokenizer,
        tasks_path=folder,
        plan=SplitPlan(counts={WHOLE: limit}, first=True),
        allow_unsafe_code=allow_unsafe_code,
        trust_remote_code=trust_remote_code,
    )
    scored = subject.scored(Scorer(items), WHOLE, dict.fromkeys(names))
    return ModelScores(model, lm_eval_results(items, scored, WHOLE), scored)


def score_on_campaign(
    model: str,
    results: Path,
    split: Split,
    *,
    dtype: str | None = None,
    device: str = "cpu",
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    allow_unsafe_code: bool = False,
) -> ModelScores:
    """Score a model on the items of a campaign's split, by the metrics of its objectives.

    Arguments as `evomerge.score`; what the campaign allows is allowed here too.

    Raises:
        ResultsError: No campaign is there, or its prompts are not what they were.
    """
    with Store.open(results, write=False) as store:
        run, facts = store.campaign, store.facts
    trust_remote_code = trust_remote_code or run.models.trust_remote_code
    subject = _subject(
        model,
        run.models.base,
        dtype=dtype or run.models.dtype,
        device=device,
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle or run.models.allow_pickle,
        quantise=run.scorer.quantise,
    )
    items = campaign_items(
        run,
        facts,
        results,
        subject.tokenizer,
        allow_unsafe_code=allow_unsafe_code,
        trust_remote_code=trust_remote_code,
    )
    scored = subject.scored(Scorer(items), split, _wanted_metrics(run))
    return ModelScores(model, lm_eval_results(items, scored, split), scored)


def campaign_items(
    run: campaign.Campaign,
    facts: Mapping[str, Any],
    results: Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    allow_unsafe_code: bool = False,
    trust_remote_code: bool = False,
) -> Items:
    """Return the items of a campaign.

    Args:
        run: Its settings.
        facts: What its store knows of it.
        results: Its folder.
        tokenizer: What reads their prompts.
        allow_unsafe_code: Let tasks run code that a model writes; what the campaign allows is allowed.
        trust_remote_code: Let data sets run their code.

    Raises:
        ResultsError: The prompts are not what they were.
    """
    items = load_items(
        requests_of(run, results / TASKS),
        tokenizer=tokenizer,
        tasks_path=run.tasks_path,
        plan=split_plan(run),
        prompt=PromptStyle(**run.prompt.model_dump()),
        allow_unsafe_code=allow_unsafe_code or run.scorer.allow_unsafe_code,
        trust_remote_code=trust_remote_code,
    )
    for task, digest in items.digests.items():
        if facts["prompts"][task] != digest:
            raise ResultsError(
                f'the prompts of "{task}" are not those of the campaign: its task files, lm-eval or '
                "the tokenizer changed",
                file=results,
            )
    return items


def _wanted_metrics(run: campaign.Campaign) -> dict[str, tuple[str, ...]]:
    """Return task → the searched metric, and the reported one beside it, unless that needs a teacher."""
    wanted = {goal.task: dict.fromkeys([goal.metric, goal.report]) for goal in run.objectives}
    return {
        task: tuple(name for name in names if name != TEACHER_DIVERGENCE)
        for task, names in wanted.items()
    }


def table(scores: ModelScores) -> str:
    """Return the table that lm-eval prints, and which of its numbers are not over whole items."""
    lines = [lm_eval_table(scores.results)]
    for task, found in _each_task(scores).items():
        if found.truncated:
            lines.append(
                f"{task}: {found.truncated} of {len(found.items)} items are longer than the model's "
                "context; they were cut from the left, as lm-eval cuts them\n"
            )
        gold = [values for name, values in found.metrics.items() if name.startswith("gold_")]
        without = gold[0].count(None) if gold else 0
        if without:
            lines.append(
                f"{task}: {without} of {len(found.items)} items have no gold answer; gold_* metrics are "
                "over the others\n"
            )
    return "\n".join(lines)


def refuse_output(path: Path) -> None:
    """Refuse a path at which `write_json` could not write; leave nothing behind.

    Raises:
        UserError: It is a folder, or nothing can be made there.
    """
    if path.is_dir():
        raise UserError(
            f"is a folder; expected a file to write to, such as {path / 'scores.json'}", file=path
        )
    target = _aside(path) if _is_replaceable(path) else path
    try:
        refuse_unwritable(target, advice="choose another --out")
    except UserError as error:
        raise UserError(error.message, file=path) from None


def write_json(scores: ModelScores, path: Path) -> None:
    """Write lm-eval's results and, under `items`, the values of every item.

    A file is written whole or not at all; a device or a pipe is written to.
    """
    items = {
        task: {
            "ids": list(found.items),
            "metrics": {metric: list(values) for metric, values in found.metrics.items()},
        }
        for task, found in {**scores.scored.subtasks, **scores.scored.tasks}.items()
    }
    text = json.dumps({"model": scores.model, **scores.results, "items": items}, indent=2)
    if not _is_replaceable(path):
        path.write_text(text + "\n", encoding="utf-8")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(path)
    aside.write_text(text + "\n", encoding="utf-8")
    aside.replace(path)


def _is_replaceable(path: Path) -> bool:
    return path.is_file() or not path.exists()


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _each_task(scores: ModelScores) -> dict[str, TaskScores]:
    """Return the scores of every task, those of groups' tasks among them, without the groups'."""
    groups = scores.results["group_subtasks"]
    found = {**scores.scored.subtasks, **scores.scored.tasks}
    return {task: each for task, each in found.items() if task not in groups}


class _Subject:
    """A model that is checked at once and loaded to be scored; an adapter is for `base`, or names its own."""

    def __init__(
        self,
        model: str,
        base: str | None,
        *,
        dtype: str,
        device: str,
        trust_remote_code: bool,
        allow_pickle: bool,
        quantise: str | None = None,
    ) -> None:
        if (Path(model).expanduser() / ADAPTER_CONFIG).is_file():
            model = f"{_base_of(model) if base is None else base}+{model}"
        usable_device(device)
        torch_dtype(dtype)
        open_checkpoint(model, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle)
        self.tokenizer = load_tokenizer(model, trust_remote_code=trust_remote_code)
        self._model, self._dtype = model, dtype
        self._options: dict[str, Any] = {
            "device": device,
            "trust_remote_code": trust_remote_code,
            "allow_pickle": allow_pickle,
            "quantise": quantise,
        }

    def scored(self, scorer: Scorer, split: Split, metrics: _Metrics) -> Scored:
        live = LiveModel([self._model], dtype=self._dtype, **self._options)
        live.write(Merge("passthrough", (self._model,), dtype=self._dtype))
        return scorer.score(live.module, split, metrics, bootstrap_iterations=BOOTSTRAP_ITERATIONS)


class _EnsembleSubject:
    """A saved ensemble, scored as a campaign scores it."""

    def __init__(
        self,
        folder: Path,
        *,
        dtype: str,
        device: str,
        trust_remote_code: bool,
        allow_pickle: bool,
        quantise: str | None = None,
    ) -> None:
        from evomerge.combine.folder import open_candidate

        self._candidate = open_candidate(folder)
        self.tokenizer = load_tokenizer(str(folder), trust_remote_code=trust_remote_code)
        names = self._candidate.model_names()
        self._live = LiveModel(
            names,
            dtype=dtype,
            device=device,
            trust_remote_code=trust_remote_code,
            allow_pickle=allow_pickle,
            quantise=quantise,
        )

    def scored(self, scorer: Scorer, split: Split, metrics: _Metrics) -> Scored:
        prompts = scorer.prompts(self._live.module)
        builder = kind_of(self._candidate).opened(self._live, prompts)
        parts = builder.parts(self._candidate, split)
        draws = BOOTSTRAP_ITERATIONS
        if parts is None:
            module = builder.build(self._candidate)
            return scorer.score(module, split, metrics, bootstrap_iterations=draws)
        members = [
            MemberPart(
                partial(kind_of(part.candidate).opened(self._live).build, part.candidate),
                part.positions,
            )
            for part in parts
        ]
        return scorer.score_parts(members, split, metrics, bootstrap_iterations=draws)


def _subject(
    model: str,
    base: str | None,
    *,
    dtype: str,
    device: str,
    **options: Any,  # noqa: ANN401
) -> _Subject | _EnsembleSubject:
    folder = Path(model).expanduser()
    if (folder / "combiner.json").is_file():
        usable_device(device)
        torch_dtype(dtype)
        return _EnsembleSubject(folder, dtype=dtype, device=device, **options)
    return _Subject(model, base, dtype=dtype, device=device, **options)


def _base_of(adapter: str) -> str:
    config = Path(adapter).expanduser() / ADAPTER_CONFIG
    try:
        base = json.loads(config.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"cannot be read: {error}", file=config) from None
    try:
        if not isinstance(base, str) or not base:
            raise ModelError("expected a model")
        locate(base)
    except ModelError as error:
        raise ModelError(
            f"is an adapter whose base_model_name_or_path is {base!r} ({error.message}); give "
            f"BASE+{adapter}",
            file=adapter,
        ) from None
    return base
