"""`evomerge init`: a commented campaign file for given models, checked before it is written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from evomerge import config as campaign
from evomerge import yaml_file
from evomerge.config.destination import refuse_unwritable
from evomerge.config.model_names import by_part, short_name
from evomerge.errors import CampaignError, TaskError, UserError
from evomerge.preflight.check import preflight
from evomerge.preflight.family import OpenFamily, open_whole
from evomerge.tasks import document_counts, expand, list_tasks, task_metrics

ITEMS = {"search": 64, "select": 64, "holdout": 200}
"""Where a task has as many."""
UNION = "  tokenizer: union  # experts added tokens; whose to keep: all (union), base, or an expert's name\n"
MOST_SUGGESTED = 8
"""Tasks of a folder that are all taken where none is named after an expert."""

TEMPLATE = """\
# A search for the best merge of these models. Check it: evomerge check {file}
name: {name}
models:
  base: {base}  # the common ancestor: a folder, a Hub id, or zoo:NAME
  experts:  # models fine-tuned from it: full checkpoints or LoRA adapters
{experts}
  dtype: {dtype}  # of weights and passes; bfloat16: half the memory, on most CPUs much slower
{tokenizer}space:
  method: task_arithmetic  # base + sum of weight x (expert - base); `auto` searches the best few methods
  layers: {layers}  # contiguous groups of layers, each with weights of its own; or `each`
{components}  parameters:
    weight: {{low: 0.0, high: 1.2}}  # a range is searched, a value is fixed; 0: without the expert
objectives:  # lm-eval tasks; the weighted mean is searched (or `mode: pareto`)
{objectives}
{tasks_path}items: {{search: {search}, select: {select}, holdout: {holdout}}}  # per task, disjoint
search: {{sampler: auto, trials: 200, seed: 0}}  # auto: by gradients where the tasks allow it
workers: {{count: auto, cpus: 1, gpus: {gpus}}}  # gpus: 1 puts each worker on a GPU of its own
out: results/{folder}  # relative to this file
"""

_PLAIN = re.compile(r"[A-Za-z_./][\w./-]*")
_RESERVED = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}
_ATTENTION = ("self_attn", "attention", "attn")
_FEED_FORWARD = ("mlp", "feed_forward", "ffn")


def write(
    output: Path, base: str, experts: list[str], tasks: list[str], tasks_path: Path | None
) -> None:
    """Write a campaign file that `evomerge check` accepts; it is checked before it is there.

    Where tasks share documents, the splits get fewer items than the smallest task would allow.

    Args:
        output: Where to; an existing file is refused.
        base: Folder, Hub id or `zoo:NAME`.
        experts: As `base`.
        tasks: lm-eval tasks, groups, tags and patterns; none: those of `tasks_path` that are named after
            experts, or all of a small folder.
        tasks_path: Folder of the user's task files.

    Raises:
        UserError: The file exists or cannot be written, no task is named, or models and tasks make no
            campaign; nothing is written then.
    """
    if output.exists():
        raise CampaignError("exists already; give another file with -o", file=output)
    refuse_unwritable(output, CampaignError, advice="give another file with -o")
    folder = None if tasks_path is None else str(tasks_path)
    named = [{"model": e, "name": n} for e, n in zip(experts, _names(experts), strict=True)]
    models = campaign.Models.model_validate({"base": base, "experts": named})
    models, opened = open_whole(models)
    names = expand(tasks, folder) if tasks else _suggested(models, folder)
    sizes = document_counts(names, tasks_path=folder)
    fields = _fields(output, base, experts, names, tasks_path, opened)
    for room in (1.0, 0.75, 0.5):
        text = TEMPLATE.format(**fields, **items_of(sizes, room))
        document = yaml_file.parse(text, path=output, kind=CampaignError)
        try:
            preflight(campaign.Campaign.from_document(document))
        except TaskError:
            if room == 0.5:
                raise
        except UserError as error:
            raise type(error)(
                f"these models and tasks make no campaign: {error.message}",
                file=error.file,
                field=error.field,
            ) from error
        else:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(text, encoding="utf-8")
            return


def _fields(
    output: Path,
    base: str,
    experts: list[str],
    tasks: Sequence[str],
    tasks_path: Path | None,
    opened: OpenFamily,
) -> dict[str, object]:
    """Return what the template leaves open, items apart."""
    cuda = torch.cuda.is_available()
    folder = None if tasks_path is None else str(tasks_path)
    # lm-eval's main metric is the first that a task states
    metrics = {task: next(iter(task_metrics(task, tasks_path=folder))) for task in tasks}
    return {
        "file": output,
        "name": quoted(output.stem),
        "folder": output.stem,
        "base": quoted(_from(output, base)),
        "experts": "\n".join(
            f"    - {quoted(_from(output, expert))}"
            if name == short_name(expert)
            else f"    - {{model: {quoted(_from(output, expert))}, name: {quoted(name)}}}"
            for expert, name in zip(experts, _names(experts), strict=True)
        ),
        "dtype": "bfloat16" if cuda else "float32",
        "tokenizer": "" if opened.vocabulary is None else UNION,
        "layers": min(3, opened.family.num_layers),
        "components": _components(opened.base.tensors),
        "objectives": "\n".join(
            f"  - {{task: {quoted(task)}, metric: {quoted(metric)}, weight: 1.0}}"
            for task, metric in metrics.items()
        ),
        "tasks_path": f"tasks_path: {quoted(_from(output, folder))}\n" if folder else "",
        "gpus": int(cuda),
    }


def _names(experts: Sequence[str]) -> list[str]:
    """Return the last part of each model's name, with a number where that is another's name."""
    names: list[str] = []
    for place, expert in enumerate(experts, 1):
        name = short_name(expert)
        names.append(f"{name}-{place}" if name in ("base", *names) else name)
    return names


def items_of(sizes: Mapping[str, Sequence[int]], room: float = 1.0) -> dict[str, int]:
    """Return how many items each split gets: the usual numbers, or less where a task has less.

    Args:
        sizes: Task → documents of each of its members.
        room: Share of the documents to use.

    Raises:
        TaskError: A task has too few for three disjoint splits.
    """
    task, least = min(sizes.items(), key=lambda pair: sum(pair[1]))
    most_members = max(len(members) for members in sizes.values())
    have, usual = int(room * sum(least)), sum(ITEMS.values())
    if have >= usual and most_members <= min(ITEMS.values()):
        return dict(ITEMS)
    part = max(most_members, min(ITEMS["search"], have * ITEMS["search"] // usual))
    rest = min(max(most_members, ITEMS["holdout"]), have - 2 * part)
    if rest < most_members:
        raise TaskError(
            f'task "{task}" has {sum(least)} documents, too few for three splits that share none; '
            "name another task"
        )
    return {"search": part, "select": part, "holdout": rest}


def quoted(text: str) -> str:
    """Return text as a YAML scalar that reads back as itself wherever it stands."""
    if _PLAIN.fullmatch(text) and text.lower() not in _RESERVED:
        return text
    return json.dumps(text, ensure_ascii=False)


def _suggested(models: campaign.Models, tasks_path: str | None) -> list[str]:
    if tasks_path is None:
        raise TaskError(
            "name what the merged model should do well: --tasks A,B, lm-eval tasks or those of "
            "--tasks-path",
            field="--tasks",
        )
    known = list_tasks(tasks_path, include_defaults=False)
    named = [
        min(fitting, key=len)
        for expert in models.experts
        if (fitting := [task for task in known if _is_named_after(task, expert.name)])
    ]
    if named:
        return list(dict.fromkeys(named))
    if not 0 < len(known) <= MOST_SUGGESTED:
        found = f"{len(known)} tasks" if known else "no tasks"
        raise TaskError(f"has {found}; name some: --tasks A,B", file=tasks_path, field="--tasks")
    return list(known)


def _is_named_after(task: str, expert: str) -> bool:
    parts = re.split(r"[\W_]+", task.lower())
    wanted = re.split(r"[\W_]+", expert.lower())
    places = range(len(parts) - len(wanted) + 1)
    return any(parts[place : place + len(wanted)] == wanted for place in places)


def _components(tensors: Iterable[str]) -> str:
    """Return the line that tells attention from feed-forward, by what this family calls them."""
    names = "\n".join(tensors)
    found = [
        next((text for text in texts if text in names), None)
        for texts in (_ATTENTION, _FEED_FORWARD)
    ]
    listed = ", ".join(text for text in found if text is not None)
    comment = "tensors by substring of their name; what matches none is `rest`"
    return f"  components: [{listed}]  # {comment}\n" if listed else ""


def _from(output: Path, model: str) -> str:
    """Return local paths, of `MODEL+ADAPTER` each, as seen from the campaign file's folder; else as it is."""
    folder = output.resolve().parent

    def seen(part: str) -> str:
        path = Path(part).expanduser()
        if part.startswith("zoo:") or not path.exists():
            return part
        path = path.resolve()
        return f"./{path.relative_to(folder)}" if path.is_relative_to(folder) else str(path)

    return by_part(seen)(model)
