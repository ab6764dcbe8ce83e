"""Commands on one model: build it from a recipe, or score it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from evomerge.cli.options import DisplayOption, SplitName, names
from evomerge.errors import UserError

UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def merge(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE.yaml|DIR", help="A recipe, any mergekit file, or a results folder."
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT_DIR", help="Folder of the merged model.")],
    trial: Annotated[
        str | None,
        typer.Option(metavar="N", help="Of a results folder: which trial, or best: the winner."),
    ] = None,
    methods: Annotated[
        Path | None,
        typer.Option(metavar="FILE.py", help="Declares merge methods of yours; it is run."),
    ] = None,
    device: Annotated[str, typer.Option(help="Where to compute.")] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="Of the file, such as bfloat16.")] = None,
    max_shard_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Largest file, such as 500MB; default: 5GB.")
    ] = None,
    display: DisplayOption = "auto",
    trust_remote_code: Annotated[bool, typer.Option(help="Let models run their code.")] = False,
    allow_pickle: Annotated[bool, typer.Option(help="Accept PyTorch pickles.")] = False,
    as_lora: Annotated[
        int | None,
        typer.Option(
            metavar="RANK", min=1, help="Write one LoRA adapter of the base, of this rank at most."
        ),
    ] = None,
) -> None:
    """Build one merged model from a recipe, or from a trial of a campaign, and save it."""
    from evomerge import api

    if trial is None and source.is_dir():
        raise _folder_error(source)
    made = api.merge(
        source,
        out,
        trial=trial,
        methods=methods,
        device=device,
        dtype=dtype,
        max_shard_bytes=None if max_shard_size is None else _bytes(max_shard_size),
        display=display,
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle,
        as_lora=as_lora,
    )
    if made is None or isinstance(made, int):
        of_trial = "" if made is None else f" of trial {made}"
        print(f"saved the merged model{of_trial} to {out}")
    else:
        print(f"saved the merge as an adapter to {out}\n{made.text()}")


def _bytes(size: str) -> int:
    """Return the bytes of a size such as `500MB`, decimal as transformers takes it."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(KB|MB|GB|TB|B)?", size.strip().upper())
    count = int(float(found[1]) * UNITS[found[2] or "B"]) if found else 0
    if count < 1:
        raise UserError(
            f'found "{size}", expected a size such as 500MB or 5GB', field="max-shard-size"
        )
    return count


def _folder_error(folder: Path) -> UserError:
    """Say what of a folder was probably meant."""
    if (folder / "recipe.yaml").is_file():
        message = f"is a folder; name its recipe: {folder / 'recipe.yaml'}"
    elif (folder / "campaign.yaml").is_file() or (folder / "study.db").is_file():
        message = "is a results folder; say which trial: --trial N, or --trial best"
    else:
        message = "is a folder; expected a recipe (a YAML file), or a results folder with --trial N"
    return UserError(message, file=folder)


def score(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Folder, Hub id, zoo:NAME, BASE+ADAPTER or a LoRA adapter."
        ),
    ],
    tasks: Annotated[
        str, typer.Option(help="lm-eval tasks, groups, tags, or patterns; comma-separated.")
    ] = "",
    tasks_path: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of lm-eval task files.")
    ] = None,
    num_fewshot: Annotated[int | None, typer.Option(min=0, help="Examples in the prompt.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first items a task.")] = None,
    campaign: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Score on the items of this campaign.")
    ] = None,
    split: Annotated[
        SplitName | None, typer.Option(help="Which of its items; default: holdout.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="Default: the campaign's, or float32.")] = None,
    device: Annotated[str, typer.Option(help="Where to run.")] = "cpu",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Write results and items here.")
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option(help="Let the model and data sets run their code.")
    ] = False,
    allow_pickle: Annotated[bool, typer.Option(help="Accept PyTorch pickles.")] = False,
    allow_unsafe_code: Annotated[
        bool, typer.Option(help="Let tasks run code that the model writes.")
    ] = False,
) -> None:
    """Score any model on lm-eval tasks, or on the very items of a campaign."""
    wanted = names(tasks)
    _check_questions(wanted, campaign, tasks_path, num_fewshot, limit, split)

    from evomerge import api, single

    if out is not None:
        single.refuse_output(out)
    scores = api.score(
        model,
        wanted,
        campaign=campaign,
        split=split or "holdout",
        tasks_path=tasks_path,
        num_fewshot=num_fewshot,
        limit=limit,
        dtype=dtype,
        device=device,
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle,
        allow_unsafe_code=allow_unsafe_code,
    )
    print(single.table(scores), end="")
    if out is not None:
        single.write_json(scores, out)


def _check_questions(
    tasks: list[str],
    campaign: Path | None,
    tasks_path: Path | None,
    num_fewshot: int | None,
    limit: int | None,
    split: SplitName | None,
) -> None:
    """Refuse what says nothing, or two things, about the items to score on."""
    if campaign is None and not tasks:
        raise UserError("say what to score on: --tasks A,B or --campaign DIR")
    if campaign is not None and tasks:
        raise UserError("found --tasks and --campaign; expected one of them")
    if campaign is None and split is not None:
        raise UserError("--split is of a campaign's items; give --campaign DIR, or leave it out")
    of_tasks = {"--tasks-path": tasks_path, "--num-fewshot": num_fewshot, "--limit": limit}
    given = [flag for flag, value in of_tasks.items() if value is not None]
    if campaign is not None and given:
        raise UserError(
            f"found {' and '.join(given)} beside --campaign, whose items and prompts are those of the "
            "campaign; leave it out"
        )
