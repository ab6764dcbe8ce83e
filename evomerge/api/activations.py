"""Statistics of models' activations on prompts of the user's, as a file that recipes name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evomerge.errors import ResultsError, UserError
from evomerge.workers.imports import import_quickly


def statistics(
    experts: Sequence[str],
    prompts: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    moments: bool = False,
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
    from evomerge import zoo
    from evomerge.candidate import Merge
    from evomerge.inference.activations import moments_by_tensor
    from evomerge.merge.statistics import write_statistics
    from evomerge.tasks import read_prompts

    found = []
    for expert, file in zip(experts, files, strict=True):
        model = str(zoo.resolve(expert)) if expert.startswith("zoo:") else expert
        opened = live.LiveModel(
            [model],
            dtype=dtype,
            device=device,
            trust_remote_code=trust_remote_code,
            allow_pickle=allow_pickle,
        )
        opened.write(Merge("passthrough", (model,), dtype=dtype))
        texts = read_prompts(Path(file), opened.tokenizer)
        tokens = [opened.tokenizer(text)["input_ids"] for text in texts]
        known, stored = opened.checkpoints[model].tensors, opened.stored_as
        parts = moments_by_tensor(opened.module, tokens, full=moments)
        squares, pairs = (
            {stored(n): t.numpy() for n, t in one.items() if stored(n) in known} for one in parts
        )
        found.append((squares, pairs))
    write_statistics(Path(out), found)
