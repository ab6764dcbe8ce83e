"""Statistics of models' activations on prompts of the user's, as a file that recipes name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.errors import ResultsError, UserError
from evomerge.workers.imports import import_quickly

if TYPE_CHECKING:
    from evomerge.merge.live import LiveModel


def statistics(
    experts: Sequence[str],
    prompts: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    moments: bool = False,
    base: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
) -> None:
    """Let experts read prompts, and write what enters their linear layers for methods that read it.

    The file holds for each expert and linear layer the root mean square of each column; a recipe over these
    experts names it: `statistics: FILE`. A campaign takes its own.

    Args:
        experts: Folders, Hub ids, `zoo:NAME`, `MODEL+ADAPTER`, in the order of the recipe.
        prompts: JSON lines, as a campaign's `prompts`: a file for all, or one an expert.
        out: The file, which must not exist.
        moments: Keep all second moments, `[columns, columns]` a layer, too.
        base: Keep those that `merged_features` reads, too, in a merge of the experts on this model. Its
            tokenizer encodes their prompts.
        dtype: Of the models.
        device: Where they run.
        trust_remote_code: Let models run code of their own.
        allow_pickle: Accept PyTorch pickles where there is no safetensors file.

    Raises:
        UserError: A model, the prompts or the file is wrong.
        MergeError: The disk does not take the file.
    """
    single_file = isinstance(prompts, str | Path)
    files = [prompts] * len(experts) if isinstance(prompts, str | Path) else list(prompts)
    if len(files) != len(experts) or not files:
        expected = "at least one expert" if single_file else "a file of prompts for each expert"
        raise UserError(f"found {len(files)} for {len(experts)} experts, expected {expected}")
    if Path(out).exists():
        raise ResultsError("exists already; name another file, or move it away", file=out)
    live = import_quickly("evomerge.merge.live")
    from evomerge.candidate import Merge
    from evomerge.candidate.activations import ActivationsJob
    from evomerge.merge.activations import activations
    from evomerge.merge.statistics import write_statistics
    from evomerge.tasks import read_prompts

    def opened(*models: str) -> LiveModel:
        found: LiveModel = live.LiveModel(
            models,
            dtype=dtype,
            device=device,
            trust_remote_code=trust_remote_code,
            allow_pickle=allow_pickle,
        )
        return found

    def tokens(model: LiveModel, file: str | Path) -> list[list[int]]:
        texts = read_prompts(Path(file), model.tokenizer)
        return [model.tokenizer(text)["input_ids"] for text in texts]

    names = tuple(experts)
    jobs = [
        ActivationsJob(one, Merge("passthrough", (one,), dtype=dtype), moments=moments)
        for one in names
    ]
    found = []
    for job, file in zip(jobs, files, strict=True):
        model = opened(job.name)
        own = activations(model, job, [tokens(model, file)])
        found.append([own.squares, own.moments])
    if base is not None:
        merge = Merge("regmean", names, base, fixed={"weight": 1.0}, dtype=dtype)
        model = opened(base, *names)
        together = ActivationsJob("", merge, experts=tuple(jobs))
        merged = activations(model, together, [tokens(model, file) for file in files]).merged
        found = [[*own, more] for own, more in zip(found, merged, strict=True)]
    write_statistics(Path(out), found)
