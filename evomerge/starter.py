"""`evomerge init`: a commented campaign file for given models."""

from __future__ import annotations

from pathlib import Path

from evomerge import campaign, yaml_file
from evomerge.destination import refuse_unwritable
from evomerge.errors import CampaignError
from evomerge.family import open_family
from evomerge.score import task_metrics

ZOO_TASK = "zoo_{}"

TEMPLATE = """\
# A search for the best merge of these models. Check it: evomerge check {file}
name: {name}
models:
  base: {base}  # the common ancestor: a folder, a Hub id, or zoo:NAME
  experts:  # models fine-tuned from it: full checkpoints or LoRA adapters
{experts}
  dtype: {dtype}  # of the merged weights and of the forward passes
space:
  method: task_arithmetic  # base + sum of weight x (expert - base); see also ties, dare_ties, linear
  layers: {layers}  # contiguous groups of layers, each with weights of its own; or `each`
  components: [self_attn, mlp]  # tensors by substring of their name; what matches none is `rest`
  parameters:
    weight: {{low: 0.0, high: 1.2}}  # a range is searched, a value is fixed; 0: without the expert
objectives:  # lm-eval tasks; the weighted mean is searched (or `mode: pareto`)
{objectives}
{tasks_path}items: {{search: {search}, select: {select}, holdout: {holdout}}}  # per task, disjoint
search: {{sampler: cmaes, trials: 200, seed: 0}}
workers: {{count: auto, cpus: 1, gpus: 0}}  # gpus: 1 puts each worker on a GPU of its own
out: results/{name}  # relative to this file
"""


def write(
    output: Path, base: str, experts: list[str], tasks: list[str], tasks_path: Path | None
) -> None:
    """Write a campaign file that `evomerge check` accepts.

    Args:
        output: Where to; an existing file is refused.
        base: Folder, Hub id or `zoo:NAME`.
        experts: As `base`.
        tasks: lm-eval tasks; none: those of the zoo's specialists, or an example to replace.
        tasks_path: Folder of the user's task files.

    Raises:
        UserError: The file exists, or the models or tasks do not fit.
    """
    if output.exists():
        raise CampaignError("exists already; give another file with -o", file=output)
    refuse_unwritable(output, CampaignError, advice="give another file with -o")
    models = campaign.Models.model_validate({"base": base, "experts": experts})
    opened = open_family(models)
    if not tasks:
        tasks = [ZOO_TASK.format(expert.name) for expert in models.experts]
    text = TEMPLATE.format(
        file=output,
        name=output.stem,
        base=_quoted(_from(output, base)),
        experts="\n".join(f"    - {_quoted(_from(output, expert))}" for expert in experts),
        dtype=_dtype(opened.base.config.dtype),
        layers=min(3, opened.family.num_layers),
        objectives="\n".join(
            f"  - {{task: {task}, metric: {_metric(task, tasks_path)}, weight: 1.0}}"
            for task in tasks
        ),
        tasks_path="" if tasks_path is None else f"tasks_path: {_from(output, str(tasks_path))}\n",
        search=64,
        select=64,
        holdout=200,
    )
    yaml_file.parse(text, path=output, kind=CampaignError)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")


def _metric(task: str, tasks_path: Path | None) -> str:
    """Return the first metric that the task states, lm-eval's main one."""
    return next(
        iter(task_metrics(task, tasks_path=None if tasks_path is None else str(tasks_path)))
    )


def _from(output: Path, model: str) -> str:
    """Return a local path as seen from the campaign file's folder; anything else as it is."""
    path = Path(model).expanduser()
    if model.startswith("zoo:") or not path.exists():
        return model
    path, folder = path.resolve(), output.resolve().parent
    return f"./{path.relative_to(folder)}" if path.is_relative_to(folder) else str(path)


def _quoted(text: str) -> str:
    return f'"{text}"' if any(mark in text for mark in ": #{}[]") else text


def _dtype(found: object) -> str:
    name = str(found).removeprefix("torch.")
    return name if name in ("float32", "bfloat16", "float16") else "bfloat16"
